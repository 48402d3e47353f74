"""``python -m benchmarks [NAME ... [OPTIONS]]``: run benchmarks, all by default and then with one table of ``results/``.

Each of several runs in a process of its own, since some load a stand-in device or change PyTorch's threads for good.
Those that need options, such as the folder of your data, are left out and named.

A benchmark is a module of a folder here with ``main() -> None`` that writes ``benchmarks/results/NAME.json`` through
:func:`benchmarks.results.write`.
"""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys
import traceback
from pathlib import Path

from benchmarks import results
from configs import InputError

HERE = Path(__file__).parent
# Modules of the groups that are no benchmarks: they serve others, or are run by themselves.
HELPERS = {"conversions", "live_page", "live_picture", "marking_page", "simulate", "unmarked", "views"}


def modules() -> dict[str, str]:
    """Name of each benchmark -> its module."""
    groups = [
        HERE / group.name for group in pkgutil.iter_modules([str(HERE)]) if group.ispkg and group.name != "standin"
    ]
    found = {
        module.name: f"benchmarks.{group.name}.{module.name}"
        for group in groups
        for module in pkgutil.iter_modules([str(group)])
    }
    return {name: found[name] for name in sorted(found.keys() - HELPERS)}


def main(arguments: list[str]) -> int:
    # What follows a name are that benchmark's own options.
    cut = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    wanted, options = arguments[:cut], arguments[cut:]
    if options and len(wanted) != 1:
        print("benchmarks: options belong to one benchmark; name it before them", file=sys.stderr)
        return 2
    known = modules()
    unknown = set(wanted) - set(known)
    if unknown:
        print(f"benchmarks: no {', '.join(sorted(unknown))}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    if len(wanted) == 1:
        return _run(wanted[0], known[wanted[0]], options)
    codes = {name: subprocess.call([sys.executable, "-m", "benchmarks", name]) for name in wanted or known}
    if not wanted:
        print(results.table())
    # Status 2 of one that nobody named: it needs an option, and has said which.
    left_out = [name for name, code in codes.items() if code == 2 and not wanted]
    failed = [name for name, code in codes.items() if code and name not in left_out]
    for what, names in (("left out, they need options", left_out), ("failed", failed)):
        if names:
            print(f"{what}: {', '.join(names)}", file=sys.stderr)
    return 1 if failed else 0


def _run(name: str, module: str, options: list[str]) -> int:
    print(f"== {name}", flush=True)
    sys.argv = [f"benchmarks {name}", *options]
    try:
        importlib.import_module(module).main()
    except InputError as error:
        print(f"benchmarks {name}: {error}", file=sys.stderr)
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
