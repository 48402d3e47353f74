"""Loss curves of tiny fixed runs, kept as exact hexadecimal floats: a changed bit is a changed training.

After a change that is meant to move them: ``python -m tests.test_pretrain_goldens`` writes them anew; look at the
differences before committing them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from configs import load_config
from pretrain.loop import Trainer
from pretrain.priors import task_class
from pretrain.train import open_split
from tests.pretrain_data import Alone, talkers

FOLDER = Path(__file__).parent / "goldens"
COMMON = {"batch_size": 2, "checkpoint_every": 100, "validate_every": 100, "seed": 7, "optimiser": {"warmup": 2}}
RUNS = {
    "audio-expression": {
        "steps": 6,
        "window": 24,
        "overlap": 8,
        "linear_context": 2,
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


@pytest.mark.parametrize("prior", sorted(RUNS))
def test_the_loss_curve_is_the_one_kept(prior):
    header, *lines = (FOLDER / f"{prior}.txt").read_text().splitlines()
    kept = [float.fromhex(line.split()[1]) for line in lines]
    got = losses(prior)
    if header == machine():
        assert [value.hex() for value in got] == [value.hex() for value in kept]
    else:  # other bits, the same training
        assert got == pytest.approx(kept, rel=2e-3)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in RUNS:
        text = "".join(f"{step} {value.hex()}\n" for step, value in enumerate(losses(name)))
        (FOLDER / f"{name}.txt").write_text(f"{machine()}\n{text}")
