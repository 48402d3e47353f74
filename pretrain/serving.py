"""A registered prior for a plain MLflow user: ``mlflow.pyfunc.load_model("models:/NAME@champion").predict({...})``.

The registry's ``MLmodel`` names this module; MLflow calls :func:`_load_pyfunc` with the prior's folder. Inputs and
outputs are dictionaries of NumPy arrays whose first axis is frames; :func:`describe` is the signature shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from configs import InputError

MODULE = "pretrain.serving"


def describe(info: dict[str, Any]) -> dict[str, Any]:
    """The ``serving`` entry of a ``prior.json``: the module to load with, inputs and outputs of ``predict``.

    Shapes use -1 for any length. ``audio-expression``: features (T, C) at 25 fps → expression (T, K) and the config's
    other targets. ``sync-expert``: frames (T, H, W, 3) uint8, landmarks (T, 478, 3) px, features (T, C) → sync_c,
    sync_d, offset. ``expression-visual``: R frames of one person, mattes and tracks → maps (N, 14) of UV Gaussians.
    """
    prior = info["prior"]
    columns = int((info.get("features") or {}).get("size", -1))
    features = _tensor("features", "float32", -1, columns)
    frames = _tensor("frames", "uint8", -1, -1, -1, 3)
    if prior == "audio-expression":
        seed = {"name": "seed", "dtype": "long", "default": 0}
        return _entry([features], [_tensor("expression", "float32", -1, -1)]) | {"params": [seed]}
    if prior == "sync-expert":
        points = _tensor("landmarks", "float32", -1, -1, 3)
        outputs = [_tensor(name, "float32", 1) for name in ("sync_c", "sync_d", "offset")]
        return _entry([frames, points, features], outputs)
    if prior == "expression-visual":
        return _entry([frames, *_visual_inputs()], [_tensor("maps", "float32", -1, 14)])
    raise InputError(f"prior '{prior}': no such prior, so it cannot be served")


def _visual_inputs() -> list[dict[str, Any]]:
    return [
        _tensor("mattes", "uint8", -1, -1, -1),
        _tensor("identity", "float32", -1),
        _tensor("intrinsics", "float32", 3, 3),
        _tensor("rotation", "float32", -1, 3, 3),
        _tensor("translation", "float32", -1, 3),
        _tensor("expression", "float32", -1, -1),
        _tensor("eyelids", "float32", -1, 2),
        _tensor("gaze", "float32", -1, 2, 2),
    ]


def _tensor(name: str, dtype: str, *shape: int) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": list(shape)}


def _entry(inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> dict[str, Any]:
    return {"module": MODULE, "inputs": inputs, "outputs": outputs}


class Served:
    """What ``mlflow.pyfunc.load_model`` wraps; ``unwrap_python_model().prior`` is the prior itself."""

    def __init__(self, prior: Any) -> None:
        self.prior, self.name = prior, prior.info["prior"]

    def predict(self, data: dict[str, np.ndarray], params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """See :func:`describe`; ``params`` of ``audio-expression``: ``seed``.

        Raises:
            InputError: shapes that the prior does not take.
        """
        if self.name == "audio-expression":
            return self.prior.sample(np.asarray(data["features"], np.float32), **(params or {}))
        if self.name == "sync-expert":
            figures = self.prior.confidence(data["frames"], data["landmarks"], data["features"])
            return {key: np.float32([value]) for key, value in zip(("sync_c", "sync_d", "offset"), figures)}
        tracks = {name: value for name, value in data.items() if name not in ("frames", "mattes")}
        return {"maps": self.prior.predict(data["frames"], data["mattes"], tracks).cpu().numpy()}


def _load_pyfunc(path: str) -> Served:
    """MLflow's entry point: ``path`` is the prior's folder."""
    from pretrain.folder import load_prior

    return Served(load_prior(Path(path)))
