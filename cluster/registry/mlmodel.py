"""The ``MLmodel`` file of a version: the module that loads its folder, its inputs and its outputs. No pickled object."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.registry.prior_folder import ArrayEntry, PriorInfo, Signature

if TYPE_CHECKING:
    from mlflow.models import ModelSignature


def write_mlmodel(folder: Path, info: PriorInfo, run_id: str, artifact_path: str) -> None:
    """Describe a prior folder to MLflow; ``info["serving"]`` names the loading module, inputs and outputs.

    A prior without such an entry is registered all the same, and only Headstart can load it.
    """
    from mlflow.models import Model

    serving = info.get("serving") or {}
    model = Model(artifact_path=artifact_path, run_id=run_id, signature=_signature(serving))
    if serving.get("module"):
        model.add_flavor(
            "python_function",
            loader_module=serving["module"],
            python_version=".".join(map(str, sys.version_info[:3])),
            env={"virtualenv": "python_env.yaml"},
        )
    model.metadata = {"prior": info.get("prior"), "weights_sha256": info.get("weights_sha256")}
    model.save(str(folder / "MLmodel"))
    (folder / "requirements.txt").write_text("headstart\n")
    (folder / "python_env.yaml").write_text("dependencies:\n- -r requirements.txt\n")


def _signature(serving: Signature) -> ModelSignature | None:
    """``{"inputs": [{"name", "dtype", "shape"}], "outputs": [...], "params": [...]}`` as MLflow's signature, or None."""
    if not serving.get("inputs"):
        return None
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    def schema(entries: list[ArrayEntry]) -> Schema:
        return Schema([TensorSpec(np.dtype(e["dtype"]), tuple(e["shape"]), name=e["name"]) for e in entries])

    params = [ParamSpec(e["name"], e["dtype"], e["default"]) for e in serving.get("params", [])]
    model_signature: Any = ModelSignature  # its own annotation forbids the absent parameters that it allows
    return model_signature(
        inputs=schema(serving["inputs"]),
        outputs=schema(serving["outputs"]) if serving.get("outputs") else None,
        params=ParamSchema(params) if params else None,
    )
