"""A SQLite registry whose folder was moved or renamed: MLflow's records name the files by their old absolute paths."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from urllib.parse import unquote, urlsplit

from configs.progress import say

# Tables and columns in which MLflow 3 keeps where files are; those that a version lacks are left out.
PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)


def follow(database: Path, experiment: str) -> bool:
    """Correct the recorded places if the files lie beside the database and their old folder is gone.

    Args:
        database: the SQLite file, which may be empty or new.
        experiment: the name of the experiment whose files lie in ``artifacts`` beside the database.

    Returns:
        Whether anything was corrected, so that MLflow's own functions find the files, too.
    """
    now = database.absolute().parent / "artifacts"
    with contextlib.closing(sqlite3.connect(database, timeout=20.0)) as base:
        old = _recorded(base, experiment)
        if old is None or old == now.as_uri() or _folder(old) is None or not now.is_dir():
            return False
        if Path(str(_folder(old))).exists():  # a copy of a registry that still exists
            return False
        runs = base.execute("SELECT run_uuid FROM runs").fetchall()
        # Without files of any run these are others; the recorded ones may lie on a disk that is not mounted.
        if not any((now / str(run)).is_dir() for (run,) in runs):
            return False
        with base:
            for table, column in PLACES:
                with contextlib.suppress(sqlite3.OperationalError):
                    base.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (now.as_uri(), len(old) + 1, old, len(old) + 1, f"{old}/"),
                    )
    say(f"the registry was moved: its files are now looked for in {now}")
    return True


def _recorded(base: sqlite3.Connection, experiment: str) -> str | None:
    try:
        row = base.execute("SELECT artifact_location FROM experiments WHERE name = ?", (experiment,)).fetchone()
    except sqlite3.DatabaseError:  # no tables yet
        return None
    return str(row[0]).rstrip("/") if row and row[0] else None


def _folder(uri: str) -> Path | None:
    """The folder of a ``file:`` URI; ``None`` for other stores and for folders that are not ours."""
    parts = urlsplit(uri)
    path = Path(unquote(parts.path))
    return path if parts.scheme == "file" and path.name == "artifacts" else None
