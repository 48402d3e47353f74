"""How the process runs: threads sleep when idle, and other libraries' output goes to a file."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from configs.runtime import DEFAULTS

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


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core: no second thread that could spin")
def test_threads_of_numpy_sleep_between_small_products():
    program = """
import time
from configs import runtime
runtime.prepare()
import numpy as np
a = np.ones((200, 200), np.float32)
a @ a
begin, spent = time.monotonic(), time.process_time()
for _ in range(20):
    a @ a
    time.sleep(0.03)
print((time.process_time() - spent) / (time.monotonic() - begin))
"""
    environment = {name: value for name, value in os.environ.items() if name not in DEFAULTS}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert float(run.stdout) < 0.15  # spinning: 0.3 on a busy machine, 0.8 on an idle one
