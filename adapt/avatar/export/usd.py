"""``.usdc`` and ``.usdz``: OpenUSD's ``ParticleField3DGaussianSplat``, still or animated by time samples.

The schema came with OpenUSD 26.03 (package ``usd-core``, optional). Scales are linear, opacities are after the
sigmoid, colour is SH degree 0.
Source: pxr/usd/usdVol/schema.usda of OpenUSD 26.11.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from adapt.avatar.export.axes import OPENGL, checked_axes, half_turn, to_axes
from adapt.avatar.export.cloud import Cloud, colors_of
from adapt.avatar.export.files import Record, as_json, partial_file, statement
from cluster.storage.errors import StorageError, sentence
from configs import InputError

SUFFIXES = (".usdc", ".usdz")
AXES = OPENGL  # a stage is Y-up or Z-up; this one is Y-up
FIRST_VERSION = (0, 26, 3)
INSTALL = "pip install 'headstart[usd]'"
# Frames after which time samples are moved from memory to the file: 60,000 Gaussians take 3.4 MB per frame.
_FRAMES_IN_MEMORY = 8
_HEAD, _SPLATS = "/head", "/head/gaussians"
_F_DC = "radiance:sphericalHarmonicsCoefficients"


def write(path: str | Path, cloud: Cloud, record: Record, axes: str | None = None) -> None:
    """Write a cloud given in OpenCV axes, atomically.

    Args:
        record: see ``Provenance.as_dict``; goes into ``customData`` of the head and of the layer.
        axes: ``opengl`` is the standard and the default; ``opencv`` leaves the head's own axes.

    Raises:
        InputError: ``usd-core`` is absent or too old.
    """
    write_sequence(path, [cloud], record, axes)


def write_sequence(
    path: str | Path, clouds: Iterable[Cloud], record: Record, axes: str | None = None, *, fps: float = 25.0
) -> int:
    """Write clouds as time samples, one time code per frame; an attribute that keeps its value takes no space.

    Args:
        clouds: one or more, in OpenCV axes, with the same number of Gaussians in the same order; an iterator is
            taken frame by frame, and memory does not grow with it.
        fps: time codes per second.

    Returns:
        The number of frames.

    Raises:
        InputError: ``usd-core`` is absent or too old, no frame, or frames of different sizes.
    """
    pxr = require_usd()
    path, axes = Path(path), checked_axes(axes, AXES)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem}.") as folder:
        layer = Path(folder) / f"{path.stem}.usdc"
        try:
            frames = _Stage(pxr, layer, record, axes, fps).fill(clouds)
            with partial_file(path) as partial:
                if path.suffix.lower() == ".usdz":
                    pxr.UsdUtils.CreateNewUsdzPackage(str(layer), str(partial))
                else:
                    layer.replace(partial)
        except pxr.Tf.ErrorException as error:
            raise _of_the_disk(path, error) or error from None
    return frames


def _of_the_disk(path: Path, error: Exception) -> StorageError | None:
    """USD's error as the system's, where it quotes one, such as a full disk; else None."""
    number = next(
        (n for n in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO) if os.strerror(n) in str(error)), None
    )
    return None if number is None else sentence(path, "write", OSError(number, os.strerror(number)))


def require_usd() -> Any:
    """The ``pxr`` package with the modules that are used here.

    Raises:
        InputError: it is absent or too old, with the line that installs it.
    """
    try:
        import pxr
        from pxr import Gf, Sdf, Usd, UsdGeom, UsdUtils, UsdVol, Vt  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"USD files need usd-core, which cannot be imported ({error}); install it: {INSTALL}"
        ) from None
    found = tuple(Usd.GetVersion())
    if found < FIRST_VERSION:
        raise InputError(
            f"USD files need usd-core 26.3 or newer, which has Gaussians, got {found[1]}.{found[2]}; upgrade: {INSTALL}"
        )
    return pxr


class _Stage:
    """A layer that is filled frame by frame."""

    def __init__(self, pxr: ModuleType, path: Path, record: Record, axes: str, fps: float) -> None:
        self.pxr, self.axes = pxr, axes
        self.stage = pxr.Usd.Stage.CreateNew(str(path))
        pxr.UsdGeom.SetStageUpAxis(self.stage, pxr.UsdGeom.Tokens.y)
        pxr.UsdGeom.SetStageMetersPerUnit(self.stage, 1.0)
        self.stage.SetTimeCodesPerSecond(fps)
        self.stage.SetFramesPerSecond(fps)
        head = pxr.UsdGeom.Xform.Define(self.stage, _HEAD).GetPrim()
        self.stage.SetDefaultPrim(head)
        self.stage.GetRootLayer().comment = statement(record)
        notes = _plain(json.loads(as_json(record, axes)))
        self.stage.GetRootLayer().customLayerData = notes
        head.SetCustomData(notes)
        self.prim = pxr.UsdVol.ParticleField3DGaussianSplat.Define(self.stage, _SPLATS).GetPrim()
        self._set("radiance:sphericalHarmonicsDegree", 0)
        self._set("sortingModeHint", "zDepth")
        self._set("projectionModeHint", "perspective")
        # Per attribute: the array last seen, and the last frame that has a sample.
        self.seen: dict[str, np.ndarray] = {}
        self.sampled: dict[str, int] = {}

    def fill(self, clouds: Iterable[Cloud]) -> int:
        """Add every frame, save the layer and return the number of frames."""
        frame = -1
        for frame, cloud in enumerate(clouds):
            self._add(frame, cloud)
            if frame % _FRAMES_IN_MEMORY == _FRAMES_IN_MEMORY - 1:
                self.stage.GetRootLayer().Save()
        if frame < 0:
            raise InputError("USD: no frame to write")
        if frame > 0:
            self.stage.SetStartTimeCode(0)
            self.stage.SetEndTimeCode(frame)
        self.stage.GetRootLayer().Save()
        return frame + 1

    def _add(self, frame: int, cloud: Cloud) -> None:
        arrays = _attributes(to_axes(cloud, self.axes))
        if self.seen and len(self.seen["positions"]) != cloud.n:
            raise InputError(
                f"USD: frame {frame} has {cloud.n} Gaussians, the first has {len(self.seen['positions'])}; "
                "an animation needs the same Gaussians in every frame"
            )
        for name, array in arrays.items():
            self._sample(frame, name, array)
        self.seen = arrays

    def _sample(self, frame: int, name: str, array: np.ndarray) -> None:
        """The first frame is the default value; later ones are samples where they differ from the frame before."""
        before = self.seen.get(name)
        if before is None:
            self._set(name, self._value(name, array))
        elif not np.array_equal(before, array):
            if self.sampled.get(name) != frame - 1:  # values are interpolated: hold the old one until here
                if name not in self.sampled:
                    self._set(name, self._value(name, before), 0)
                self._set(name, self._value(name, before), frame - 1)
            self._set(name, self._value(name, array), frame)
            self.sampled[name] = frame

    def _value(self, name: str, array: np.ndarray) -> object:
        vt = self.pxr.Vt
        kinds = {"orientations": vt.QuatfArray, "opacities": vt.FloatArray}
        return kinds.get(name, vt.Vec3fArray).FromNumpy(np.ascontiguousarray(array, np.float32))

    def _set(self, name: str, value: object, frame: int | None = None) -> None:
        attribute = self.prim.GetAttribute(name)
        attribute.Set(value) if frame is None else attribute.Set(value, frame)


def _attributes(cloud: Cloud) -> dict[str, np.ndarray]:
    """Arrays by attribute; quaternions as USD keeps them in memory, xyzw."""
    reach = 3 * np.maximum.reduce(cloud.scales.T)  # a Gaussian is drawn to three standard deviations
    return {
        "positions": cloud.means,
        "orientations": np.roll(cloud.quats, -1, axis=1),
        "scales": cloud.scales,
        "opacities": cloud.opacities,
        _F_DC: cloud.f_dc,
        "extent": np.stack([(cloud.means.T - reach).min(1), (cloud.means.T + reach).max(1)]),
    }


def _plain(notes: dict[str, object]) -> dict[str, object]:
    """Values that USD dictionaries hold: texts, numbers and truth values."""
    return {
        key: value if isinstance(value, str | bool | int | float) else json.dumps(value) for key, value in notes.items()
    }


def read(path: str | Path, frame: int | None = None) -> Cloud:
    """The cloud of the first Gaussian field of a stage, in OpenCV axes.

    Args:
        frame: a time code; by default the value without time.

    Raises:
        InputError: ``usd-core`` is absent or too old, the file is not a USD stage, or it holds no Gaussians.
    """
    stage = _opened(path)
    prim = next((p for p in stage.Traverse() if p.GetTypeName() == "ParticleField3DGaussianSplat"), None)
    if prim is None:
        raise InputError(f"{path}: no ParticleField3DGaussianSplat in this stage")

    def array(name: str) -> np.ndarray:
        attribute = prim.GetAttribute(name)
        return np.array(attribute.Get() if frame is None else attribute.Get(frame))

    cloud = Cloud.make(
        array("positions"),
        np.roll(array("orientations"), 1, axis=1),
        array("scales"),
        array("opacities"),
        colors_of(array(_F_DC)),
    )
    axes = stage.GetRootLayer().customLayerData.get("axes", OPENGL)
    return half_turn(cloud) if axes == OPENGL else cloud


def read_record(path: str | Path) -> dict[str, object] | None:
    """A file's provenance record; ``None`` if it has none.

    Raises:
        InputError: ``usd-core`` is absent or too old, or the file is not a USD stage.
    """
    stage = _opened(path)  # held here: the layer goes with its stage
    return dict(stage.GetRootLayer().customLayerData) or None


def _opened(path: str | Path) -> Any:
    pxr = require_usd()
    try:
        return pxr.Usd.Stage.Open(str(path))
    except pxr.Tf.ErrorException as error:
        raise InputError(f"{path}: no USD stage ({str(error).splitlines()[0].strip()})") from None
