"""``python -m benchmarks [NAME ... [OPTIONS]]``: run benchmarks, all by default and then with one table of ``results/``.

A benchmark is a module of this folder with ``main() -> None`` that writes ``benchmarks/results/NAME.json`` through
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
HELPERS = {
    "__main__",
    "adapting",
    "chromium",
    "conversions",
    "live_page",
    "live_picture",
    "marking_page",
    "pictures",
    "results",
    "standin",
    "unmarked",
}


def names() -> list[str]:
    """The benchmarks that exist."""
    return sorted(module.name for module in pkgutil.iter_modules([str(HERE)]) if module.name not in HELPERS)


def main(arguments: list[str]) -> int:
    # What follows a name are that benchmark's own options.
    cut = next((i for i, word in enumerate(arguments) if word.startswith("-")), len(arguments))
    wanted, options = arguments[:cut], arguments[cut:]
    if options and len(wanted) != 1:
        print("benchmarks: options belong to one benchmark; name it before them", file=sys.stderr)
        return 2
    unknown = set(wanted) - set(names())
    if unknown:
        print(f"benchmarks: no {', '.join(sorted(unknown))}; known: {', '.join(names())}", file=sys.stderr)
        return 2
    failed = []
    for name in wanted or names():
        print(f"== {name}", flush=True)
        sys.argv = [f"benchmarks {name}", *options]
        try:
            importlib.import_module(f"benchmarks.{name}").main()
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
