"""What a figure was measured on: the device's name, the package's version, the checkout's commit."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@cache
def processor() -> str:
    """The processor's model name, else the architecture."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def device_name(device: Any = None) -> str:
    """The name that every report and result gives a device.

    Args:
        device: a ``torch.device`` or its name; ``None`` for the first GPU where there is one, else the processor.

    Returns:
        A GPU's own name, or the processor with its cores and torch's threads.
    """
    import torch

    kind = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if kind.type != "cpu":
        return str(torch.get_device_module(kind).get_device_name(kind))
    return f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


def package_version() -> str:
    """Headstart's version; ``0`` when it is used without being installed."""
    try:
        return version("headstart")
    except PackageNotFoundError:
        return "0"


def git(*arguments: str) -> str:
    """Output of a git command in this checkout, stripped; empty where there is no repository or no git."""
    try:
        run = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return run.stdout.strip()


def commit(digits: int = 10) -> str | None:
    """The checkout's commit, abbreviated to ``digits``; ``None`` where there is no repository."""
    return git("rev-parse", f"--short={digits}", "HEAD") or None


def code_version() -> str:
    """``VERSION+COMMIT`` in a checkout, else ``VERSION``."""
    at = commit()
    return f"{package_version()}+{at}" if at else package_version()
