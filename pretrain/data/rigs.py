"""The rig that the coefficients of a dataset or prior belong to."""

from __future__ import annotations

from collections.abc import Mapping

from configs import InputError
from heads.rig import Rig, load_rig
from heads.rig.registry import DEFAULT


def recorded_rig(record: Mapping[str, object] | None, owner: str) -> Rig:
    """The rig of a record ``{"name", "sha256", "source"}``; without a source it is the shipped rig.

    Args:
        owner: what holds the record, for the error message.

    Raises:
        InputError: its files are missing, or differ from those of the record.
    """
    record = record or {}
    rig = load_rig(record.get("source") or DEFAULT)
    if record.get("sha256") and record["sha256"] != rig.sha256:
        raise InputError(
            f"{owner}: made with the rig {record.get('name')} ({str(record['sha256'])[:12]}), this installation has "
            f"{rig.name} ({rig.sha256[:12]}); expression coefficients mean nothing on another rig: bring the rig's files, "
            "or build and train again with this one"
        )
    return rig
