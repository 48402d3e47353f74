"""A local diary of what MLflow must record: written first, then delivered in order and at least once.

One folder per training run and server under ``HEADSTART_HOME/spool``: ``run.json`` (who it is, and which server it belongs
to), ``diary.jsonl`` (one entry a line), ``sent`` (bytes of the diary delivered), ``files/`` (images and artifacts until
they are delivered), ``alive`` (locked while the run writes). A training run never waits for the server. What a crash
left behind is sent by the next training run that uses the same server, or by ``python -m cluster.registry.spool``; the
diary of a live run is sent by that run alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cluster.registry import mlflow_client
from cluster.storage import storage
from cluster.storage.retry import brief
from configs import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

log = logging.getLogger("headstart.tracking")
BATCH = 500  # metrics per request; MLflow accepts at most 1000
KEY_TAG = "headstart.key"
Entry = tuple[dict[str, Any], int]  # the entry, and the offset in the diary behind it


class Spool:
    """The diary of one training run.

    Args:
        key: identifies the training run; the same key continues the same MLflow run.
        name: the run's display name.
        params: flat parameters, as :func:`cluster.registry.mlflow_client.flatten` gives them.
    """

    def __init__(self, key: str, name: str, params: dict[str, str]) -> None:
        uri = mlflow_client.shown_uri()
        self.folder = _root() / f"{key}-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
        self._alive = _take(self.folder)
        (self.folder / "files").mkdir(exist_ok=True)
        self._lock, self._sending = threading.Lock(), threading.Lock()
        storage.write_json(self.folder / "run.json", {"key": key, "name": name, "params": params, "uri": uri})
        self._diary = open(self.folder / "diary.jsonl", "ab")  # noqa: SIM115 - kept for the run
        if self._diary.tell() and _torn(self.folder):
            self._diary.write(b"\n")  # a line that a crash cut short must not swallow the next one

    def write(self, entry: dict[str, object]) -> None:
        """Append one entry; it has been handed to the operating system when this returns."""
        with self._lock:
            self._diary.write(json.dumps(entry).encode() + b"\n")
            self._diary.flush()

    def keep(self, source: Path) -> str:
        """Copy a file beside the diary, so that it survives its origin. Returns its name there."""
        name = f"{uuid.uuid4().hex[:8]}-{source.name}"
        shutil.copyfile(source, self.folder / "files" / name)
        return name

    def new_file(self, suffix: str) -> tuple[Path, str]:
        """Path and name of a file that the caller writes beside the diary."""
        name = uuid.uuid4().hex[:12] + suffix
        return self.folder / "files" / name, name

    def send(self) -> int:
        """Deliver what is new, from the run that writes; returns the number of entries and raises as :func:`send`."""
        with self._sending:
            return _deliver_all(self.folder, remove=False)

    def close(self) -> None:
        """End writing from this process; another may then deliver and remove the diary."""
        with self._lock:
            self._diary.close()
            self._alive.close()


def send(folder: Path) -> int:
    """Deliver what a diary still holds and remove it when it is finished; returns the number of entries delivered.

    The diary of another server, or of a live run, is left as it is.

    Raises:
        InputError: the server does not answer.
        Exception: what MLflow raised; the diary stays.
    """
    if not _is_ours(folder):
        return 0
    with _unless_alive(folder) as mine:
        return _deliver_all(folder, remove=True) if mine else 0


def send_all() -> dict[str, object]:
    """Deliver the diaries of this process's server: ``{"sent": entries, "waiting": diaries left, "error": why or None}``.

    ``waiting`` counts the diaries of all servers, without those of live runs.
    """
    sent, error = 0, None
    for folder in sorted(_root().glob("*")):
        try:
            sent += send(folder)
        except Exception as caught:
            error = error or brief(caught)
    return {"sent": sent, "waiting": len(waiting()), "error": error}


def waiting() -> list[Path]:
    """Folders of diaries that have undelivered entries and no live run."""
    return [folder for folder in sorted(_root().glob("*")) if _entries(folder) and not _is_alive(folder)]


def find_run(client: MlflowClient, key: str) -> Run | None:
    """The MLflow run of a training run by its key, or None."""
    experiment = mlflow_client.experiment(client)
    found = client.search_runs([experiment], filter_string=f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return found[0] if found else None


# ------------------------------------------------------------------------------------------------ details


def _root() -> Path:
    return storage.home() / "spool"


def _take(folder: Path) -> IO[str]:
    """Lock a diary's folder for writing while the returned file is open; after a crash the system releases it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        alive = open(folder / "alive", "a")  # noqa: SIM115 - kept for the run
        fcntl.flock(alive, fcntl.LOCK_EX)  # another process may be delivering it and is soon done
        with contextlib.suppress(FileNotFoundError):
            if os.stat(folder / "alive").st_ino == os.fstat(alive.fileno()).st_ino:
                return alive
        alive.close()  # delivered and removed meanwhile: begin again with a fresh folder


@contextlib.contextmanager
def _unless_alive(folder: Path) -> Iterator[bool]:
    """Lock the folder as its writer would; False if a run or another deliverer holds it."""
    try:
        with open(folder / "alive", "a") as alive:
            try:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
                return
            yield True
    except FileNotFoundError:
        yield False  # another process was first


def _is_alive(folder: Path) -> bool:
    with _unless_alive(folder) as free:
        return not free


def _is_ours(folder: Path) -> bool:
    """Whether the diary belongs to the server that this process uses."""
    try:
        return bool(storage.read_json(folder / "run.json")["uri"] == mlflow_client.shown_uri())
    except (InputError, KeyError, TypeError):
        return False


def _deliver_all(folder: Path, *, remove: bool) -> int:
    entries = _entries(folder)
    if entries:
        client = mlflow_client.client()
        run_id = _run_id(client, storage.read_json(folder / "run.json"))
        for group in _groups(entries):
            _deliver(client, run_id, folder, [entry for entry, _ in group])
            storage.write_bytes(folder / "sent", str(group[-1][1]).encode())
    if remove and _is_finished(folder):
        shutil.rmtree(folder, ignore_errors=True)
    return len(entries)


def _is_finished(folder: Path) -> bool:
    """Whether the last line says that the training has ended."""
    path = folder / "diary.jsonl"
    lines = path.read_bytes().splitlines() if path.is_file() else []
    try:
        return bool(lines) and bool(json.loads(lines[-1]).get("end"))
    except ValueError:
        return False


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


def _run_id(client: MlflowClient, identity: dict[str, Any]) -> str:
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


def _log_params(client: MlflowClient, run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in sorted(params.items())]
    for start in range(0, len(items), 100):
        client.log_batch(run_id, params=items[start : start + 100])


def _deliver(client: MlflowClient, run_id: str, folder: Path, group: list[dict[str, object]]) -> None:
    entry = group[0]
    if "metrics" in entry:
        _log_metrics(client, run_id, group)
    elif "file" in entry:
        _log_file(client, run_id, folder, entry)
    elif entry.get("end"):
        client.set_terminated(run_id, status=str(entry["end"]))


def _log_metrics(client: MlflowClient, run_id: str, group: list[dict[str, Any]]) -> None:
    from mlflow.entities import Metric

    rows = [
        Metric(name, float(value), int(entry["time"]), int(entry["step"]))
        for entry in group
        for name, value in entry["metrics"].items()
    ]
    for start in range(0, len(rows), BATCH):
        client.log_batch(run_id, metrics=rows[start : start + BATCH])


def _log_file(client: MlflowClient, run_id: str, folder: Path, entry: dict[str, Any]) -> None:
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
