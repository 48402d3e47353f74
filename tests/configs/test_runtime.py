"""Other libraries' output goes to a file, ours stays where it was."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import logging, os, sys, warnings
from pathlib import Path
from configs.runtime import others_to

with others_to(Path(sys.argv[1])) as (out, err):
    print("a library prints")
    os.write(2, b"a C library writes\\n")
    logging.getLogger("other").warning("a library logs")
    warnings.warn("a library warns")
    import subprocess
    subprocess.run(["sh", "-c", "echo a child writes"])
    print("ours", file=out)
    print("our error", file=err)
print("after")
"""


def test_what_others_print_goes_to_the_file_and_ours_to_the_terminal(tmp_path):
    log = tmp_path / "logs" / "run.log"
    run = subprocess.run([sys.executable, "-c", CODE, str(log)], capture_output=True, text=True, check=True)
    assert run.stdout == "ours\nafter\n"
    assert run.stderr == "our error\n"
    written = log.read_text()
    for text in ("a library prints", "a C library writes", "a library logs", "a library warns", "a child writes"):
        assert text in written
