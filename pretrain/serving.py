"""A registered prior for a plain MLflow user: ``mlflow.pyfunc.load_model("models:/NAME@champion").predict({...})``.

The registry's ``MLmodel`` names this module; MLflow calls :func:`_load_pyfunc` with the prior's folder. Inputs and
outputs are dictionaries of NumPy arrays whose first axis is frames; ``Prior.signature`` describes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pretrain.folder import load_prior
from pretrain.prior import find_prior


class Served:
    """What ``mlflow.pyfunc.load_model`` wraps; ``unwrap_python_model().prior`` is the prior itself."""

    def __init__(self, prior: Any) -> None:
        self.prior, self.kind = prior, find_prior(prior.info["prior"])

    def predict(self, data: dict[str, np.ndarray], params: dict[str, Any] | None = None) -> dict[str, np.ndarray]:
        """See :meth:`pretrain.prior.Prior.signature` and ``predict``.

        Raises:
            InputError: shapes that do not fit the prior.
        """
        return self.kind.predict(self.prior, data, params or {})


def _load_pyfunc(path: str) -> Served:
    """MLflow's entry point: ``path`` is the prior's folder."""
    return Served(load_prior(Path(path)))
