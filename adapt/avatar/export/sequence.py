"""A folder of ``.ply`` files, one per frame: ``000000.ply``, ``000001.ply``, ..."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from adapt.avatar.export import ply
from adapt.avatar.export.axes import checked_axes
from adapt.avatar.export.cloud import Cloud
from adapt.avatar.export.files import Record, as_json
from configs import InputError

DOCUMENT = "sequence.json"


def write_frames(
    folder: str | Path,
    clouds: Iterable[Cloud],
    record: Record,
    axes: str | None = None,
    *,
    fps: float = 25.0,
    replace: bool = False,
) -> int:
    """Write every cloud as a ``.ply`` of its own, and ``sequence.json`` beside them; the folder appears when all is done.

    Args:
        folder: must not exist, or be one that ``replace`` allows to be replaced.
        clouds: in OpenCV axes; an iterator is taken frame by frame, and memory does not grow with it.
        fps: frames per second, for ``sequence.json``.
        replace: put the frames in the place of what the folder holds.

    Returns:
        The number of frames.

    Raises:
        InputError: the folder exists, or there is no frame.
    """
    folder, axes = Path(folder), checked_axes(axes, ply.AXES)
    if folder.exists() and not replace:
        raise InputError(f"output '{folder}' exists; choose another name or remove it")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        count = _fill(partial, clouds, record, axes)
        if not count:
            raise InputError(f"output '{folder}': no frame to write")
        document = {**json.loads(as_json(record, axes)), "fps": fps, "frames": count}
        (partial / DOCUMENT).write_text(json.dumps(document, indent=2) + "\n")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _fill(folder: Path, clouds: Iterable[Cloud], record: Record, axes: str) -> int:
    count = 0
    for cloud in clouds:
        ply.write(folder / f"{count:06d}.ply", cloud, record, axes)
        count += 1
    return count
