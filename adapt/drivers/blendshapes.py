"""Files of ARKit weights over time: CSV of Live Link Face, JSON of Audio2Face and of LAM; and a driver that moves a head by them.

A frame's weights are taken at its middle, as everywhere in Headstart: frame t at 25 fps is centred on 40 t + 20 ms.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from adapt.avatar.export.files import partial_file
from adapt.drivers.arkit import NAMES, ArkitMap
from configs import InputError, nearest
from shards.media.rates import FPS

LIVE_LINK_FPS = 60  # what the app records by default, and what readers of its files assume
SUFFIXES_READ = (".csv", ".json")
_KNOWN = {name.lower(): index for index, name in enumerate(NAMES)}
# Columns that are no shapes. The app's head and eye angles are ignored: poses come from elsewhere.
_OTHERS = {"timecode", "blendshapecount", "_neutral", "neutral"} | {
    f"{part}{angle}" for part in ("head", "lefteye", "righteye") for angle in ("yaw", "pitch", "roll")
}
_ANGLES = [f"{part}{angle}" for part in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll")]
_RATES = (24.0, 25.0, 30.0, 48.0, 50.0, 60.0)
_TIMECODE = re.compile(r"(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)")
_LOWEST, _HIGHEST = -1.0, 2.0  # solvers overshoot a little; values beyond are not weights (percentages, for example)


@dataclass(frozen=True)
class Blendshapes:
    """Weights ``[T, 52]`` in [0, 1], in the order of ``arkit.NAMES``, at moments ``times [T]``, seconds, increasing."""

    weights: np.ndarray
    times: np.ndarray

    def at_rate(self, fps: float = FPS) -> np.ndarray:
        """Weights ``[N, 52]`` float32 at the middles of frames, linear in time; the ends are held."""
        step = float(np.median(np.diff(self.times))) if len(self.times) > 1 else 1 / fps
        count = max(1, round((self.times[-1] + step / 2) * fps))
        moments = (np.arange(count) + 0.5) / fps
        columns = [np.interp(moments, self.times, column) for column in self.weights.T]
        return np.stack(columns, 1).astype(np.float32)


def read_blendshapes(path: str | Path) -> Blendshapes:
    """Weights of a ``.csv`` (Live Link Face) or ``.json`` (Audio2Face, LAM) file.

    Names are compared without case; shapes that the file lacks are 0.

    Raises:
        InputError: no such file, another kind of file, unknown names, a cell that is no weight, times that go back.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES_READ:
        raise InputError(f"blendshapes '{path}': expected a .csv of Live Link Face or a .json of Audio2Face or LAM")
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"blendshapes '{path}': no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"blendshapes '{path}': not a text file") from None
    return _from_csv(path, text) if path.suffix.lower() == ".csv" else _from_json(path, text)


def _from_csv(path: Path, text: str) -> Blendshapes:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if len(rows) < 2:
        raise InputError(f"blendshapes '{path}': {len(rows)} lines; expected a header and a line per frame")
    header, body = [name.strip() for name in rows[0]], rows[1:]
    table = np.zeros((len(body), len(header)))
    stamped = header[0].lower() == "timecode"
    for number, row in enumerate(body, 2):
        if len(row) != len(header):
            raise InputError(f"blendshapes '{path}', line {number}: {len(row)} cells, the header has {len(header)}")
        for column in range(1 if stamped else 0, len(row)):
            table[number - 2, column] = _number(path, f"line {number}, column {header[column]}", row[column])
    weights = _sorted(path, header, table)
    times = _times(path, [row[0] for row in body]) if stamped else (np.arange(len(body)) + 0.5) / LIVE_LINK_FPS
    return Blendshapes(weights, times)


def _number(path: Path, where: str, cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise InputError(f"blendshapes '{path}', {where}: '{cell[:20]}' is not a number") from None


def _times(path: Path, stamps: Sequence[str]) -> np.ndarray:
    """Seconds ``[T]`` of timecodes ``HH:MM:SS:FF`` or ``HH:MM:SS:FF.fraction``, from the first on."""
    parts = []
    for number, stamp in enumerate(stamps, 2):
        match = _TIMECODE.fullmatch(stamp.strip())
        if match is None:
            raise InputError(f"blendshapes '{path}', line {number}: timecode '{stamp[:20]}'; expected HH:MM:SS:FF")
        parts.append([float(group) for group in match.groups()])
    hours, minutes, seconds, frames = np.array(parts).T
    whole = hours * 3600 + minutes * 60 + seconds
    rate = _rate_of(whole, frames)
    times = whole + frames / rate
    back = np.flatnonzero(np.diff(times) <= 0)
    if len(back):
        raise InputError(
            f"blendshapes '{path}', line {back[0] + 3}: its timecode is not later than that of the line before"
        )
    return times - times[0] + 0.5 / rate


def _rate_of(seconds: np.ndarray, frames: np.ndarray) -> float:
    """Frames per second of a timecode, from its highest frame number; 60 for a recording of less than two seconds."""
    if seconds[-1] - seconds[0] < 2:
        return float(LIVE_LINK_FPS)
    return next((rate for rate in _RATES if np.floor(frames.max()) < rate), float(np.floor(frames.max()) + 1))


def _from_json(path: Path, text: str) -> Blendshapes:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(f"blendshapes '{path}': no JSON ({error})") from None
    names, rows, fps = _parts_of(path, document)
    try:
        table = np.array(rows, np.float64)
        rate = float(fps)
    except (TypeError, ValueError):
        raise InputError(
            f"blendshapes '{path}': rows of different lengths, or with something other than numbers"
        ) from None
    if table.ndim != 2 or not len(table) or table.shape[1] != len(names):
        raise InputError(f"blendshapes '{path}': weights of shape {list(table.shape)}, expected [frames, {len(names)}]")
    if not 1 <= rate <= 1000:
        raise InputError(f"blendshapes '{path}': {rate:g} frames a second; expected 1 to 1000")
    return Blendshapes(_sorted(path, names, table), (np.arange(len(table)) + 0.5) / rate)


def _parts_of(path: Path, document: Any) -> tuple[list[str], list[Any], Any]:
    """Names, rows and rate of either kind of document."""
    if isinstance(document, Mapping) and {"facsNames", "weightMat"} <= set(document):
        return list(document["facsNames"]), list(document["weightMat"]), document.get("exportFps", 30)
    metadata = document.get("metadata", {}) if isinstance(document, Mapping) else {}
    if metadata and "frames" in document:
        names = metadata.get("blendshape_names", document.get("names", []))
        rows = [frame.get("weights") if isinstance(frame, Mapping) else None for frame in document["frames"]]
        return list(names), rows, metadata.get("fps", 30)
    raise InputError(
        f"blendshapes '{path}': expected the keys facsNames and weightMat (Audio2Face) or metadata and frames (LAM)"
    )


def _sorted(path: Path, names: Sequence[str], table: np.ndarray) -> np.ndarray:
    """Columns in the order of ``NAMES``, each value a weight in [0, 1].

    Raises:
        InputError: unknown names, one twice, or a value that is no weight.
    """
    weights = np.zeros((len(table), len(NAMES)), np.float32)
    seen: set[str] = set()
    for name, column in zip(names, table.T):
        key = str(name).lower()
        if key in _OTHERS:
            continue
        if key not in _KNOWN:
            close = nearest(str(name), NAMES)
            hint = close if "did you mean" in close else ""
            raise InputError(f"blendshapes '{path}': '{name}' is none of the 52 ARKit names{hint}")
        if key in seen:
            raise InputError(f"blendshapes '{path}': the name '{name}' appears twice")
        seen.add(key)
        wrong = np.flatnonzero(~((column >= _LOWEST) & (column <= _HIGHEST)))
        if len(wrong):
            raise InputError(
                f"blendshapes '{path}': {name} is {column[wrong[0]]:g} in frame {wrong[0]}; expected weights from 0 to 1"
            )
        weights[:, _KNOWN[key]] = np.clip(column, 0, 1)
    if not seen:
        raise InputError(f"blendshapes '{path}': none of the 52 ARKit names, such as {NAMES[17]}")
    return weights


# --- writing --------------------------------------------------------------------------------------------------------


def write_blendshapes(path: str | Path, weights: np.ndarray, fps: float = FPS) -> None:
    """Write weights ``[T, 52]`` as ``.csv`` (Live Link Face, 60 fps, linear in between) or ``.json`` (Audio2Face).

    Raises:
        InputError: another suffix.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES_READ:
        raise InputError(f"output '{path}': expected a name that ends in .csv or .json")
    text = _csv_text(weights, fps) if path.suffix.lower() == ".csv" else _json_text(weights, fps)
    with partial_file(path) as partial:
        partial.write_text(text)


def _csv_text(weights: np.ndarray, fps: float) -> str:
    """Live Link Face's table; its head and eye angles are 0."""
    times = (np.arange(len(weights)) + 0.5) / fps
    header = ["Timecode", "BlendShapeCount", *(name[0].upper() + name[1:] for name in NAMES), *_ANGLES]
    lines = [",".join(header)]
    count, angles = str(len(NAMES) + len(_ANGLES)), ["0"] * len(_ANGLES)
    for frame, row in enumerate(Blendshapes(weights, times).at_rate(LIVE_LINK_FPS)):
        second, part = divmod(frame, LIVE_LINK_FPS)
        stamp = f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}:{part:02d}.000"
        lines.append(",".join([stamp, count, *(f"{value:.6f}" for value in row), *angles]))
    return "\n".join(lines) + "\n"


def _json_text(weights: np.ndarray, fps: float) -> str:
    """Audio2Face's document."""
    document = {
        "exportFps": fps,
        "trackPath": "",
        "numPoses": len(NAMES),
        "numFrames": len(weights),
        "facsNames": list(NAMES),
        "weightMat": np.round(weights.astype(np.float64), 6).tolist(),
    }
    return json.dumps(document) + "\n"


# --- driving --------------------------------------------------------------------------------------------------------


class BlendshapeDriver:
    """Moves a head by weights instead of sound: a driver whose frame t is row t, the last one held.

    Attributes:
        name: what moved the lips, for results.
        lookahead: 0; no later sound is needed.
        face: ``expression [T, K], eyelids [T, 2], gaze [T, 2, 2]`` at 25 fps.
    """

    kind: ClassVar[str] = "blendshapes"
    by_sound: ClassVar[bool] = False
    feature = ""
    name = "ARKit blendshapes"
    lookahead = 0

    def __init__(self, mapping: ArkitMap, blendshapes: Blendshapes) -> None:
        self.face = mapping.face(blendshapes.at_rate(FPS))

    def stream(self) -> BlendshapeStream:
        """A stream from the first frame on."""
        return BlendshapeStream(self.face)


class BlendshapeStream:
    """Gives one frame per row of audio features; their values are ignored."""

    def __init__(self, face: dict[str, np.ndarray]) -> None:
        self.face, self.given = face, 0

    def push(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The next frames, one a row."""
        last = len(self.face["expression"]) - 1
        index = np.minimum(np.arange(self.given, self.given + len(rows)), last)
        self.given += len(rows)
        return {name: values[index] for name, values in self.face.items()}

    def finish(self) -> dict[str, np.ndarray]:
        """Empty: every row has given its frame."""
        return {}
