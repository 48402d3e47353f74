"""A diary of what MLflow must be told: written first, sent when the server answers, in order, at least once.

One folder per training under ``HEADSTART_HOME/spool``: ``run.json`` (who it is), ``diary.jsonl`` (one entry a line),
``sent`` (bytes of the diary delivered), ``files/`` (pictures and artifacts until they are delivered). A training never
waits for the server, and what a crash left behind is sent by the next training or by ``python -m cluster.spool``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.registry import mlflow_client
from cluster.storage import storage
from cluster.storage.retry import brief
from configs import InputError

log = logging.getLogger("headstart.tracking")
BATCH = 500  # metrics of one request; MLflow takes 1000
KEY_TAG = "headstart.key"
Entry = tuple[dict[str, Any], int]  # what to say, and the diary's length once it is said


class Spool:
    """The diary of one training.

    Args:
        key: names the training for ever; the same key continues the same MLflow run.
        name: the run's display name; params: flat texts.
    """

    def __init__(self, key: str, name: str, params: dict[str, str]) -> None:
        self.folder = _root() / key
        (self.folder / "files").mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        identity = {"key": key, "name": name, "params": params, "uri": mlflow_client.shown_uri()}
        storage.write_json(self.folder / "run.json", identity)
        self._diary = open(self.folder / "diary.jsonl", "ab")  # noqa: SIM115 - kept for the run
        if self._diary.tell() and _torn(self.folder):
            self._diary.write(b"\n")  # a line that a crash cut short must not swallow the next one

    def write(self, entry: dict[str, Any]) -> None:
        """Append one entry; it is on its way to the disk when this returns."""
        with self._lock:
            self._diary.write(json.dumps(entry).encode() + b"\n")
            self._diary.flush()

    def keep(self, source: Path) -> str:
        """Copy a file beside the diary, so that it survives its origin. Returns its name there."""
        name = f"{uuid.uuid4().hex[:8]}-{source.name}"
        shutil.copyfile(source, self.folder / "files" / name)
        return name

    def new_file(self, suffix: str) -> tuple[Path, str]:
        """(path, name) for a file to be written beside the diary."""
        name = uuid.uuid4().hex[:12] + suffix
        return self.folder / "files" / name, name

    def close(self) -> None:
        """No more entries from this process."""
        with self._lock:
            self._diary.close()


def send(folder: Path) -> int:
    """Deliver what a diary still holds and remove it when it is finished; returns the entries delivered now.

    Raises:
        InputError: the server does not answer.
        Exception: what MLflow raised; the diary stays.
    """
    with _exclusive(folder) as mine:
        if not mine or not (folder / "run.json").is_file():
            return 0
        identity = storage.read_json(folder / "run.json")
        entries = _entries(folder)
        if not entries:
            return 0
        client = mlflow_client.client()
        run_id = _run_id(client, identity)
        for group in _groups(entries):
            _deliver(client, run_id, folder, [entry for entry, _ in group])
            storage.write_bytes(folder / "sent", str(group[-1][1]).encode())
        if entries[-1][0].get("end"):
            shutil.rmtree(folder, ignore_errors=True)
        return len(entries)


def send_all() -> dict[str, Any]:
    """Deliver every diary of this user: ``{"sent": entries, "waiting": diaries left, "error": why or None}``."""
    sent, error = 0, None
    for folder in sorted(_root().glob("*")):
        try:
            sent += send(folder)
        except Exception as caught:
            error = brief(caught)
            break
    return {"sent": sent, "waiting": len(waiting()), "error": error}


def waiting() -> list[Path]:
    """Diaries with entries not delivered."""
    return [f for f in sorted(_root().glob("*")) if _entries(f)]


def find_run(client: Any, key: str) -> Any:
    """The MLflow run of a training by its key, or None."""
    experiment = mlflow_client.experiment(client)
    found = client.search_runs([experiment], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return found[0] if found else None


# ------------------------------------------------------------------------------------------------ details


def _root() -> Path:
    return storage.home() / "spool"


@contextlib.contextmanager
def _exclusive(folder: Path) -> Iterator[bool]:
    """One process delivers a diary at a time; another one finds it taken and goes on."""
    if not folder.is_dir():
        yield False
        return
    with open(folder / ".lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _sent(folder: Path) -> int:
    path = folder / "sent"
    return int(path.read_text()) if path.is_file() else 0


def _torn(folder: Path) -> bool:
    with open(folder / "diary.jsonl", "rb") as stream:
        stream.seek(-1, 2)
        return stream.read(1) != b"\n"


def _entries(folder: Path) -> list[Entry]:
    """Complete lines not delivered yet, each with the offset behind it; a line cut short by a crash counts as empty."""
    path = folder / "diary.jsonl"
    if not path.is_file():
        return []
    entries: list[Entry] = []
    with open(path, "rb") as stream:
        at = stream.seek(_sent(folder))
        for line in stream:
            if not line.endswith(b"\n"):
                break
            at += len(line)
            try:
                entry = json.loads(line)
            except ValueError:
                entry = {}
            entries.append((entry, at))
    return entries


def _groups(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Runs of metric entries together, everything else alone, in order."""
    group: list[Entry] = []
    for entry in entries:
        if group and ("metrics" not in entry[0] or len(group) >= BATCH):
            yield group
            group = []
        if "metrics" in entry[0]:
            group.append(entry)
        else:
            yield [entry]
    if group:
        yield group


def _run_id(client: Any, identity: dict[str, Any]) -> str:
    found = find_run(client, identity["key"])
    if found is not None:
        if found.info.status != "RUNNING":
            client.update_run(found.info.run_id, status="RUNNING")
        return found.info.run_id
    run = client.create_run(
        mlflow_client.experiment(client), run_name=identity["name"], tags={KEY_TAG: identity["key"]}
    )
    _log_params(client, run.info.run_id, identity["params"])
    return run.info.run_id


def _log_params(client: Any, run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in sorted(params.items())]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def _deliver(client: Any, run_id: str, folder: Path, group: list[dict[str, Any]]) -> None:
    entry = group[0]
    if "metrics" in entry:
        _log_metrics(client, run_id, group)
    elif "file" in entry:
        _log_file(client, run_id, folder, entry)
    elif entry.get("end"):
        client.set_terminated(run_id, status=entry["end"])


def _log_metrics(client: Any, run_id: str, group: list[dict[str, Any]]) -> None:
    from mlflow.entities import Metric

    rows = [
        Metric(name, float(value), int(entry["time"]), int(entry["step"]))
        for entry in group
        for name, value in entry["metrics"].items()
    ]
    for start in range(0, len(rows), BATCH):
        client.log_batch(run_id, metrics=rows[start : start + BATCH])


def _log_file(client: Any, run_id: str, folder: Path, entry: dict[str, Any]) -> None:
    source = folder / "files" / entry["file"]
    if not source.is_file():
        return  # delivered before a crash could write it down
    target = folder / "files" / "as" / entry["as"]
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    client.log_artifact(run_id, str(target), artifact_path=entry.get("to") or None)
    source.unlink()
    target.unlink()


if __name__ == "__main__":
    outcome = send_all()
    print(json.dumps(outcome))
    if outcome["error"]:
        raise SystemExit(InputError.exit_status)
