"""Metrics, images and files of a training run to MLflow, without the training ever waiting for it.

Make one :class:`RunLog` per training run, on rank 0 only. Everything goes to a local diary first
(:mod:`cluster.registry.spool`); a thread sends it in batches. While the server is unreachable, training continues and
the diary is sent later.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import re
import threading
import time
from pathlib import Path
from typing import Any

from cluster.registry import mlflow_client, spool
from cluster.storage import storage
from cluster.storage.errors import StorageError
from cluster.storage.retry import brief
from configs.progress import say

log = logging.getLogger("headstart.tracking")
PATIENCE = 20.0  # s for which the end of a training run waits for MLflow


class RunLog:
    """One MLflow run.

    Args:
        run_name: shown in MLflow.
        params: nested configuration; flattened to ``a.b``, secrets left out.
        run: the run's folder or URL; a training run resumed there continues the same MLflow run. Without it the name decides.
        every: seconds between two batches.
    """

    def __init__(
        self, run_name: str, params: dict[str, object] | None = None, *, run: str | None = None, every: float = 10.0
    ) -> None:
        self.key = _key(run_name, run)
        self._spool = spool.Spool(self.key, run_name, mlflow_client.flatten(params or {}))
        self._every, self._closed = every, threading.Event()
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._send_now_and_then, daemon=True, name="mlflow")
        self._thread.start()

    def log(self, metrics: dict[str, float], step: int) -> None:
        """Record numbers of a step; non-finite ones are left out, since MLflow's stores disagree about them."""
        finite = {_clean(name): float(value) for name, value in metrics.items() if _is_finite(value)}
        if finite:
            self._spool.write({"metrics": finite, "step": int(step), "time": int(time.time() * 1000)})

    def image(self, name: str, array: Any, step: int) -> None:
        """Record an image ``[H, W, 3]`` or ``[H, W]``, uint8 or float in [0, 1], as ``images/NAME/step-00000100.png``."""
        import numpy as np
        from PIL import Image

        pixels = np.asarray(array)
        if pixels.dtype != np.uint8:
            pixels = (np.clip(pixels, 0, 1) * 255 + 0.5).astype(np.uint8)
        path, file = self._spool.new_file(".png")
        Image.fromarray(pixels).save(path)
        self._spool.write({"file": file, "as": f"step-{step:08d}.png", "to": f"images/{_clean(name)}"})

    def artifact(self, path: str | Path, to: str = "") -> None:
        """Record a file as it is now, below the artifact folder ``to``."""
        path = Path(path)
        self._spool.write({"file": self._spool.keep(path), "as": path.name, "to": to})

    def close(self, status: str = "FINISHED") -> None:
        """Send the rest for at most ``PATIENCE`` seconds; what remains is sent by the next training.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
        """
        if self._closed.is_set():
            return
        self._spool.write({"end": status})
        self._closed.set()
        self._thread.join(timeout=PATIENCE)
        if self._thread.is_alive() or self._trouble:
            reason = self._trouble or "MLflow is slow"
            cure = "the next training sends them, or 'python -m cluster.registry.spool'"
            say(f"metrics wait in {self._spool.folder} ({reason}); {cure}")

    def flush(self) -> None:
        """Send now what was recorded so far; what cannot be sent is kept."""
        self._send()

    def _send_now_and_then(self) -> None:
        spool.send_all()  # what earlier trainings left
        while not self._closed.wait(self._every):
            self._send()
        self._send()
        self._spool.close()
        if self._trouble is None:
            with contextlib.suppress(Exception):
                spool.send(self._spool.folder)  # everything is sent: this removes the diary

    def _send(self) -> None:
        try:
            self._spool.send()
            self._trouble = None
        except Exception as error:
            if self._trouble is None:
                log.warning("MLflow: %s; metrics are kept and sent later", brief(error))
            self._trouble = brief(error)


def run_key(run: storage.Url) -> str | None:
    """The key of a training run by its run folder or URL, or None if no :class:`RunLog` was made for it."""
    url = storage.join(run, "tracking.json")
    try:
        if storage.exists(url):
            return str(storage.read_json(url)["key"])
    except (StorageError, KeyError, TypeError) as error:
        log.warning("%s: %s; a new MLflow run is made", url, error)
    return None


def _key(name: str, run: str | None) -> str:
    """What identifies the training run: a unique key kept in its folder, or without a folder a digest of the name."""
    if run is None:
        return hashlib.sha256(name.encode()).hexdigest()[:16]
    url, known = storage.join(run, "tracking.json"), run_key(run)
    if known:
        return known
    key = hashlib.sha256(f"{run}|{time.time_ns()}".encode()).hexdigest()[:16]
    storage.write_json(url, {"key": key, "name": name, "tracking_uri": mlflow_client.shown_uri()})
    return key


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _clean(name: str) -> str:
    return re.sub(r"[^\w\-. /]", "_", str(name)).strip("/")[:250]
