"""``python -m benchmarks [NAME ... [OPTIONS]]``: run benchmarks, all by default and then with one table of ``results/``.

A benchmark is a module of a folder here with ``main() -> None`` that writes ``benchmarks/results/NAME.json`` through
:func:`benchmarks.results.write`.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from pathlib import Path

from benchmarks import results

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
    failed = []
    for name in wanted or known:
        print(f"== {name}", flush=True)
        sys.argv = [f"benchmarks {name}", *options]
        try:
            importlib.import_module(known[name]).main()
        except SystemExit:  # it needs an option, and has said which
            if wanted:
                raise
            failed.append(name)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    if not wanted:
        print(results.table())
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
