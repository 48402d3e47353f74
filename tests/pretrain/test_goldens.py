"""Loss curves of tiny fixed runs, kept as exact hexadecimal floats: a changed bit is a changed training.

After a change that is meant to move them: ``OMP_NUM_THREADS=1 python -m tests.pretrain.test_goldens`` writes them
again; look at the differences before committing them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from configs import load_config
from pretrain.folder import task_class
from pretrain.loop import Trainer
from pretrain.train import open_split
from tests.support.talkers import Alone, talkers

FOLDER = Path(__file__).parent / "goldens"
COMMON = {"batch_size": 2, "checkpoint_every": 100, "validate_every": 100, "seed": 7, "optimiser": {"warmup": 2}}
RUNS = {
    "audio-expression": {
        "steps": 6,
        "window": 24,
        "overlap": 8,
        "linear_context": 2,
        "scale": True,
        "model": {"width": 16, "layers": 2, "audio_layers": 1, "heads": 2, "style": 8},
    },
    "sync-expert": {"steps": 4, "run": 12, "model": {"channels": 8, "width": 32, "embedding": 16}},
    "expression-visual": {
        "steps": 3,
        "size": 64,
        "model": {"resolution": 32, "channels": 8, "levels": 2, "image_channels": 8},
    },
}


def machine() -> str:
    """What bits depend on: another version of torch, vector width or processor rounds differently."""
    return f"# torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {processor()}"


def processor() -> str:
    """Family and model of the processor, as the kernel names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    wanted = ("vendor_id", "cpu family", "model", "stepping")
    first = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in reversed(lines))}
    return " ".join(first.get(key, "?") for key in wanted)


def losses(prior: str) -> list[float]:
    """The run's losses, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    kind = task_class(prior)
    config = load_config(kind.config_class, {**COMMON, **RUNS[prior]})
    try:
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(kind(config, *open_split(kind, config, talkers())), folder, Alone(folder))
            try:
                trainer.begin(None)
                trainer.run()
            finally:
                trainer.close()
            return trainer.losses
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def curves() -> dict[str, str]:
    """The text of every run's curve, made by a process of its own: matrix products round by the number of threads."""
    root = FOLDER.parents[2]
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "HEADSTART_THREADS"), "1")
    run = subprocess.run(
        [sys.executable, "-m", "tests.pretrain.test_goldens", "print"],
        env={**os.environ, **one},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    parts = run.stdout.split("== ")[1:]
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1] for part in parts}


def _values(lines: list[str]) -> list[float]:
    return [float.fromhex(line.split()[1]) for line in lines]


@pytest.mark.parametrize("prior", sorted(RUNS))
def test_the_loss_curve_is_the_one_kept(prior, curves):
    kept, got = (FOLDER / f"{prior}.txt").read_text(), curves[prior]
    if kept.splitlines()[0] == machine():
        assert got.splitlines() == kept.splitlines()
    else:  # other bits, the same training
        assert _values(got.splitlines()[1:]) == pytest.approx(_values(kept.splitlines()[1:]), rel=2e-3)


def curve(prior: str) -> str:
    """Header and one line a step, as kept."""
    return f"{machine()}\n" + "".join(f"{step} {value.hex()}\n" for step, value in enumerate(losses(prior)))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in RUNS:
        if sys.argv[1:] == ["print"]:
            print(f"== {name}\n{curve(name)}", end="")
        else:
            (FOLDER / f"{name}.txt").write_text(curve(name))
