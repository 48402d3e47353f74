"""What runs on a GPU, run on a stand-in device that is as strict, in a process of its own.

The tests are those of the files ``on_*.py``. They need the device from the first backward pass on, and no other test
should see it, so one child process runs them all and this file gives their results, each under its name.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.standin import missing

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def names() -> list[str]:
    """``on_priors.test_...`` of every test function of the child's files."""
    found = []
    for path in sorted(HERE.glob("on_*.py")):
        tree = ast.parse(path.read_text())
        found += [f"{path.stem}.{node.name}" for node in tree.body if getattr(node, "name", "").startswith("test_")]
    return found


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory) -> dict[str, list[str]]:
    """Name of a test to the failures of its cases; a test that did not run is absent."""
    if why := missing():
        pytest.skip(why)
    report = tmp_path_factory.mktemp("standin") / "report.xml"
    files = [str(path) for path in sorted(HERE.glob("on_*.py"))]
    command = [sys.executable, "-m", "pytest", *files, "-q", "--tb=short", f"--junitxml={report}"]
    # Tests of several workers leave their place in the environment; the child is alone.
    placed = ("RANK", "WORLD_SIZE", "LOCAL_", "MASTER_", "ACCELERATE_")
    own = {name: value for name, value in os.environ.items() if not name.startswith(placed)}
    environment = {**own, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "-p no:cacheprovider"}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=3600)
    if not report.exists():
        pytest.fail(
            f"the child process died with {process.returncode}:\n{process.stdout[-3000:]}{process.stderr[-3000:]}"
        )
    found: dict[str, list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.attrib['classname'].rsplit('.', 1)[-1]}.{case.attrib['name'].split('[')[0]}"
        wrong = found.setdefault(name, [])
        wrong += [
            f"{case.attrib['name']}:\n{part.text}" for part in case if part.tag in ("failure", "error", "skipped")
        ]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", names())
def test_on_the_standin(outcomes, name):
    assert name in outcomes, "it did not run"
    assert not outcomes[name], "\n".join(outcomes[name])
