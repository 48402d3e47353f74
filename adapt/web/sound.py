"""The networks that drive a page besides the regression: a prior and a speech encoder, run by onnxruntime-web."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from adapt.avatar.avatar import Avatar
from adapt.drivers.closing import DOUBTFUL, FREE, NARROW, PRESSED, SHUT, SURE, LipClosing
from adapt.drivers.low_delay import heard_by
from adapt.drivers.prior import SHARE, PriorDriver
from adapt.web import onnx_graphs
from adapt.web.arrays import Document
from configs import InputError
from pretrain.audio_expression.beginnings import expression_columns
from pretrain.audio_expression.windows import LEAST_SPREAD
from shards.features import open_feature
from shards.features.whisper import Whisper

VERSION = "1.30.0"  # of onnxruntime-web, the one that was tested
RUNTIME = ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm")
PRIOR, ENCODER = "prior.onnx", "encoder.onnx"
INSTALL = f"npm install onnxruntime-web@{VERSION}, then --onnxruntime node_modules/onnxruntime-web"


@dataclass
class SoundFiles:
    """Files by name, what the document's driver says of them, and arrays of ``avatar.js``.

    Attributes:
        name: what moves the lips in the page.
    """

    name: str
    files: dict[str, bytes] = field(default_factory=dict)
    document: Document = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def sound_files(avatar: Avatar, onnxruntime: str | Path | None) -> SoundFiles:
    """What an avatar's driver needs besides its own arrays; no files for one that needs none.

    Raises:
        InputError: features or a prior that need onnxruntime-web, which is not given, incomplete, or cannot run them.
    """
    driver = avatar.driver
    name = str(heard_by(driver, avatar.document["features"])["name"])
    if name not in ("logmel", Whisper.name):
        raise InputError(f"avatar '{avatar.name}' uses the audio features '{name}', which the page cannot make; "
                         "adapt on a prior of logmel or whisper")  # fmt: skip
    runtime = None if onnxruntime is None else runtime_files(onnxruntime)
    if runtime is None and (name != "logmel" or (isinstance(driver, PriorDriver) and driver.regression is None)):
        raise InputError(
            f"avatar '{avatar.name}' speaks by networks that the page runs with onnxruntime-web: {INSTALL}"
        )
    spare = driver.regression if isinstance(driver, PriorDriver) else None
    found = SoundFiles(driver.name if spare is None or runtime is not None else spare.name)
    if runtime is None or not (isinstance(driver, PriorDriver) or name != "logmel"):
        return found
    found.files.update(runtime)
    if name == Whisper.name:
        _add_encoder(found, avatar)
    if isinstance(driver, PriorDriver):
        _add_prior(found, driver)
    return found


def runtime_files(folder: str | Path) -> dict[str, bytes]:
    """The files of ``onnxruntime-web`` that the page loads, from its npm folder or from the ``dist`` inside.

    Raises:
        InputError: they are not there.
    """
    places = [Path(folder), Path(folder) / "dist", Path(folder) / "node_modules" / "onnxruntime-web" / "dist"]
    for place in places:
        if all((place / name).is_file() for name in RUNTIME):
            return {name: (place / name).read_bytes() for name in RUNTIME}
    raise InputError(f"--onnxruntime '{folder}': holds no {' and '.join(RUNTIME)}; {INSTALL}")


def _add_prior(found: SoundFiles, driver: PriorDriver) -> None:
    prior = onnx_graphs.exported_prior(driver)
    config, columns = prior.config, expression_columns(prior.config, prior.model.n_expression)
    found.files[PRIOR] = onnx_graphs.prior_graph(driver)
    found.document["prior"] = {
        "file": PRIOR,
        "window": config.window,
        "overlap": config.overlap,
        "memory": config.memory,
        "scale": config.scale,
        "least_spread": LEAST_SPREAD,
        "expression_at": columns.start,
        "expression": columns.stop - columns.start,
        "closure_at": prior.model.dims if prior.tells_closure else None,
        "emphasis": driver.emphasis,
        "share": SHARE,
        "closing": closing_document(driver.closing),
    }
    if driver.calibration is not None:
        found.arrays["calibration"] = driver.calibration


def closing_document(closing: LipClosing | None) -> dict[str, object] | None:
    """The parameters by which the page presses lips; ``None`` without lip closing."""
    if closing is None:
        return None
    rows = {name: getattr(closing, name).tolist() for name in ("rest", "slope", "direction")}
    sizes = {"gap": closing.gap, "mean": closing.mean, "shut": SHUT, "free": FREE, "pressed": PRESSED}
    return {**sizes, "doubtful": DOUBTFUL, "sure": SURE, "narrow": NARROW, **rows}


def _add_encoder(found: SoundFiles, avatar: Avatar) -> None:
    feature = open_feature(avatar.document["features"])
    assert isinstance(feature, Whisper)
    found.files[ENCODER] = onnx_graphs.whisper_graph(feature)
    found.arrays["encoder.filters"] = feature.filters()
    found.document["encoder"] = {
        "file": ENCODER,
        "block": feature.block,
        "context": feature.context,
        "columns": 2 * feature.positions,
        "size": feature.size,
    }
