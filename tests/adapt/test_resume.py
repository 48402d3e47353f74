"""An adaptation that was interrupted anywhere and resumed ends with the weights of one that never stopped, bit for bit."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adapt.avatar import folder
from adapt.fit.loop import Fit
from adapt.job import adapt as make_avatar
from adapt.recipes import recipe_names
from configs import InputError
from tests.support.avatars import SIZE, stopped_after
from tests.support.waiting import wait_until

STEPS = 24
# Splits and clones, and sampling windows, within so few steps; nothing else differs from what users run.
SOON = [
    "clouds.refine_from=2",
    "clouds.refine_every=3",
    "clouds.gradient=0.00002",
    "eye_every=2",
    "mouth_every=2",
    "still_share=0.4",
]


class Killed(BaseException):
    """Stands for the end of the process between two steps."""


@pytest.fixture(autouse=True)
def _truth(world, monkeypatch):
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)


def run(world, out, recipe, budget=f"{STEPS}it", **options):
    changes = SOON if recipe in ("talkinggaussian", "fg3dgs") else []
    return make_avatar(
        world.video, out, recipe=recipe, budget=budget, prior="none", size=SIZE, seed=5, set=changes, **options
    )


def run_killed_after(step, *arguments, **options):
    """Save after a step, then die; saves and measurements at other times fall where the clock lets them."""
    between = Fit._between

    def dies(fit, stage):
        between(fit, stage)
        if fit.clock.iterations == step:
            fit.save()
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Fit, "_between", dies)
        with pytest.raises(Killed):
            run(*arguments, **options)


def weights(out):
    return load_file(out / folder.WEIGHTS)


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The folder of a recipe's run that nothing stopped; made once."""
    place = tmp_path_factory.mktemp("whole")

    def made(recipe):
        if not (place / recipe).exists():
            run(world, place / recipe, recipe)
        return place / recipe

    return made


def assert_equal(ours, theirs, what):
    assert ours.keys() == theirs.keys(), what
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different, f"{what}: {different}"


@pytest.mark.parametrize("recipe", recipe_names())
def test_a_run_killed_at_any_step_and_resumed_ends_with_the_same_weights(world, tmp_path, whole, recipe):
    out, step = tmp_path / "killed", random.randrange(1, STEPS)
    run_killed_after(step, world, out, recipe)
    assert (out / folder.STATE).is_file()
    torch.manual_seed(random.randrange(1 << 30))
    result = run(world, out, recipe, resume=True)
    assert result["complete"]
    assert result["iterations"] == STEPS
    assert_equal(weights(out), weights(whole(recipe)), f"{recipe}, killed after step {step}")
    assert not (out / folder.STATE).exists()


@pytest.mark.parametrize(("recipe", "step"), [("talkinggaussian", 6), ("talkinggaussian", 15), ("fg3dgs", 6)])
def test_a_kill_between_two_splits_or_two_windows_of_a_sampler_changes_nothing(world, tmp_path, whole, recipe, step):
    run_killed_after(step, world, tmp_path / "killed", recipe)
    run(world, tmp_path / "killed", recipe, resume=True)
    assert_equal(weights(tmp_path / "killed"), weights(whole(recipe)), f"{recipe}, killed after step {step}")


def test_densification_happens_in_these_few_steps(whole):
    counts = folder.read_document(whole("talkinggaussian"))["model"]["gaussians"]
    begun = 8000
    assert counts["face"] != begun, "nothing was split or pruned, so its state was not tested"


@pytest.mark.parametrize("budget", ["1it", "2it"])
def test_stages_that_get_their_one_step_of_a_tiny_budget_get_it_after_a_kill_too(world, tmp_path, budget):
    whole = run(world, tmp_path / "whole", "fg3dgs", budget)
    assert whole["iterations"] > 2
    run_killed_after(3, world, tmp_path / "killed", "fg3dgs", budget)
    assert run(world, tmp_path / "killed", "fg3dgs", budget, resume=True)["iterations"] == whole["iterations"]
    assert_equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"), budget)


@pytest.mark.parametrize("recipe", ["headstart", "talkinggaussian"])
def test_a_signal_keeps_the_state_of_its_step(world, tmp_path, whole, recipe):
    with stopped_after(9):
        assert not run(world, tmp_path / "stopped", recipe)["complete"]
    assert (tmp_path / "stopped" / "body.mp4").is_file()
    with pytest.raises(InputError, match="is unfinished; add --resume to continue it"):
        run(world, tmp_path / "stopped", recipe)
    assert run(world, tmp_path / "stopped", None, resume=True)["iterations"] == STEPS, "the recipe is the avatar's own"
    assert_equal(weights(tmp_path / "stopped"), weights(whole(recipe)), recipe)


PROGRAM = """
import sys, time
from pathlib import Path
from adapt.budget import Clock
from adapt.fit import loop
from adapt.job import adapt
from shards import tracking
from tests.support.avatars import SIZE, make_world
loop.SAVE_EVERY = 0.0
world = make_world(Path(sys.argv[1]))
tracking.track_frames = world.segments
tick = Clock.tick

def stands_still(clock):
    tick(clock)
    if clock.iterations == int(sys.argv[4]):
        time.sleep(3600)

Clock.tick = stands_still
adapt(world.video, sys.argv[2], recipe="headstart", budget=sys.argv[3], prior="none", size=SIZE, seed=5, resume=True)
"""


@pytest.mark.slow
def test_a_process_that_is_really_killed_goes_on_to_the_same_weights(tmp_path):
    def start(name, stands_still_at=-1):
        (tmp_path / f"world-{name}").mkdir(exist_ok=True)
        arguments = [str(tmp_path / f"world-{name}"), str(tmp_path / name), "40it", str(stands_still_at)]
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)

    def end(process):
        complaint = process.communicate()[1]
        assert process.returncode == 0, complaint

    end(start("whole"))
    # It stands still before its end, so that the kill is in time on any machine.
    victim, out, wanted = start("killed", 38), tmp_path / "killed", random.randrange(2, 36)
    wait_until(
        lambda: (
            victim.poll() is not None
            or (out.is_dir() and folder.read_document(out)["progress"]["iterations"] >= wanted)
        )
    )
    victim.kill()
    complaint = victim.communicate()[1]
    assert victim.returncode == -signal.SIGKILL, complaint
    folder.verify_folder(out)
    assert not folder.read_document(out)["progress"]["complete"]
    end(start("killed"))
    assert_equal(weights(out), weights(tmp_path / "whole"), f"killed from step {wanted} on")


def test_a_size_above_that_of_the_video_is_recorded_as_the_one_used(world, tmp_path):
    options = {"prior": "none", "seed": 5}
    make_avatar(world.video, tmp_path / "ada", budget="1it", size=16_000, **options)
    document = folder.read_document(tmp_path / "ada")
    assert document["config"]["size"] == document["size"] == SIZE
    with pytest.raises(InputError, match=f"was started with size={SIZE}, not 64"):
        make_avatar(world.video, tmp_path / "ada", budget="9it", size=64, resume=True, **options)
    # As an earlier version recorded it.
    document["config"]["size"] = 16_000
    (tmp_path / "ada" / folder.DOCUMENT).write_text(json.dumps(document))
    assert (
        make_avatar(world.video, tmp_path / "ada", budget="9it", size=16_000, resume=True, **options)["iterations"] == 9
    )
