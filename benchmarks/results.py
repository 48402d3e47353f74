"""The format of all results: rows with a value, a unit and a reference; device, commit and command."""

from __future__ import annotations

import json
import multiprocessing
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from configs import machine

FOLDER = Path(__file__).parent / "results"
NO_PEER = "none known"


def commit() -> str:
    """The commit of this checkout, marked ``+`` where other files than results differ from it."""
    head = machine.commit()
    # Results themselves are tracked: the first one written must not mark all that follow.
    changed = machine.git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results")
    return f"{head}{'+' if changed else ''}" if head else "unknown"


def commit_of(root: Path) -> str:
    """The commit of another checkout, which a file COMMIT in it names where git does not."""
    named = root / "COMMIT"
    if named.is_file():
        return named.read_text().strip()
    found = subprocess.run(["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def peak_memory() -> float:
    """This process's own high-water mark, MB. Not ``ru_maxrss`` where it can be helped: a child inherits its parent's."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)`` in a new process, which may start others: its peak memory is that of nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def row(
    case: str, variant: str, value: float, unit: str, against: str = NO_PEER, ratio: float | None = None
) -> dict[str, Any]:
    """One line of a result.

    Args:
        case: what was done, such as ``60k Gaussians at 512x512, forward and backward``.
        variant: by what, such as ``numba, 2 threads``.
        value: the figure, in ``unit``.
        against: the limit or peer that it is held against; "none known" is an answer.
        ratio: this figure over the peer's, measured in the same run.
    """
    peer = against or NO_PEER
    return {"case": case, "variant": variant, "value": value, "unit": unit, "against": peer, "ratio": ratio}


def write(name: str, rows: Sequence[dict[str, Any]], notes: str = "", *, command: str = "", echo: bool = True) -> Path:
    """Write ``results/NAME.json`` with device, commit and command, print it, and return its path.

    Rows of :func:`stored` keep the device and commit of their own measurement under ``measured``. Rows whose value is NaN,
    where there was nothing to measure, are left out: JSON has no NaN.

    Args:
        command: what follows ``python -m benchmarks``, where that is more than the name.
        echo: whether to print.
    """
    FOLDER.mkdir(exist_ok=True)
    record = {
        "benchmark": name,
        "device": machine.device_name(),
        "commit": commit(),
        "command": f"python -m benchmarks {command or name}",
        "notes": notes,
        "rows": [r for r in rows if r["value"] == r["value"]],
    }
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    if echo:
        print(_lines(record))
    return path


def stored(name: str) -> list[dict[str, Any]]:
    """The rows of ``results/NAME.json``, each with the device and commit that it was measured on; none where it is absent."""
    path = FOLDER / f"{name}.json"
    if not path.is_file():
        return []
    record = json.loads(path.read_text())
    origin = {"device": record["device"], "commit": record["commit"]}
    return [{**r, "measured": r.get("measured", origin)} for r in record["rows"]]


def table() -> str:
    """Every stored result as one table."""
    return "\n".join(_lines(json.loads(path.read_text())) for path in sorted(FOLDER.glob("*.json")))


def _lines(record: dict[str, Any]) -> str:
    head = f"{record['benchmark']}  [{record['device']}; {record['commit']}; {record['command']}]"
    lines = [head] + ([f"  {record['notes']}"] if record["notes"] else [])
    for r in record["rows"]:
        ratio = "" if r["ratio"] is None else f"{r['ratio']:.2f}x"
        lines.append(
            f"  {r['case']:<52} {r['variant']:<34} {r['value']:>12.4g} {r['unit']:<12} {ratio:>8}  {r['against'] or NO_PEER}"
            + (f"  [{r['measured']['commit']}; {r['measured']['device']}]" if "measured" in r else "")
        )
    return "\n".join(lines)
