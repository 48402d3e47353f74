"""What the benchmarks of adaptation choose and how their rows add up; no avatar is made here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import adapting, results
from benchmarks.adaptation import adapt, recipes, voices
from benchmarks.priors import prior_gain
from benchmarks.results import peak_memory, row
from benchmarks.training import pretrain


@pytest.fixture
def clip():
    """100 frames: still and closed in the middle third, turned in the first, open in the last, one blink."""
    from heads.geometry.rotation import euler_to_rotation

    yaw, gap = np.zeros(100), np.full(100, 0.02)
    yaw[:30], gap[70:] = np.linspace(0.4, 0.1, 30), np.linspace(0.1, 0.4, 30)
    landmarks = np.zeros((100, 478, 3), np.float32)
    landmarks[:, (33, 133), 0], landmarks[:, (362, 263), 0] = -0.5, 0.5
    landmarks[:, 13, 1] = -gap
    lids = np.zeros((100, 2), np.float32)
    lids[45:55] = 1.0
    rotation = euler_to_rotation(yaw, np.zeros(100), np.zeros(100))
    return SimpleNamespace(track={"rotation": rotation, "landmarks": landmarks, "eyelids": lids})


def test_the_narrowest_frames_are_straight_closed_and_awake(clip):
    first, count = prior_gain.narrowest(clip, 12)
    assert count == 12
    assert first >= 30
    assert first + count <= 70
    assert not set(range(first, first + count)) & set(range(45, 55))


def test_the_widest_frames_are_tested_and_never_next_to_those_trained_on(clip):
    first, count = prior_gain.narrowest(clip, 12)
    chosen = prior_gain.tested(clip, first, count)
    assert set(chosen["angles"]) == set(range(20))
    assert set(range(85, 100)) <= set(chosen["mouths"])
    near = set(range(first - prior_gain.GUARD, first + count + prior_gain.GUARD))
    assert not near & (set(chosen["angles"]) | set(chosen["mouths"]))


def test_a_clip_is_never_trained_on_whole(clip):
    assert prior_gain.narrowest(clip, 500)[1] == 66


def test_means_are_over_people_and_keep_recipes_apart():
    rows = [
        row("ada, headstart, 256x256, 60s", "PSNR face, track", 30.0, "dB"),
        row("bob, headstart, 256x256, 60s", "PSNR face, track", 34.0, "dB"),
        row("bob, ggtalker, 256x256, 60s", "PSNR face, track", 20.0, "dB"),
    ]
    found = {r["case"]: r["value"] for r in recipes.means(rows)}
    assert found == {"mean of 2, headstart, 256x256, 60s": 32.0, "mean of 1, ggtalker, 256x256, 60s": 20.0}


def test_options_reach_the_benchmark_that_is_named_before_them(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(recipes, "main", lambda: seen.append(list(sys.argv)))
    monkeypatch.setattr(sys, "argv", ["python"])
    assert command.main(["recipes", "--people", "ada"]) == 0
    assert seen == [["benchmarks recipes", "--people", "ada"]]
    assert command.main(["recipes", "prior_gain", "--people", "ada"]) == 2
    assert "options belong to one benchmark" in capsys.readouterr().err


def test_a_clip_that_is_missing_is_one_sentence(tmp_path, capsys):
    assert command.main(["recipes", "--clips", str(tmp_path), "--people", "ada"]) == 2
    assert "ada.mp4 is missing; give the folder of the clips with --clips" in capsys.readouterr().err


def test_a_clip_whose_tested_part_would_be_trained_on_is_left_out(tmp_path, monkeypatch, capsys):
    (tmp_path / "ada.mp4").touch()
    monkeypatch.setattr(recipes, "tested_from", lambda video: 9.0)
    monkeypatch.setattr(recipes, "stored", lambda name: [])
    monkeypatch.setattr(recipes, "_write", lambda rows, options, echo: None)
    measured = []
    monkeypatch.setattr(
        recipes, "measure", lambda person, recipe, case, options: measured.append(options.seconds) or []
    )
    for seconds in ("9", "10"):
        words = ["recipes", "--clips", str(tmp_path), "--people", "ada", "--recipes", "headstart", "--seconds", seconds]
        assert command.main(words) == 0
    assert measured == [9.0]
    assert "10 s of video: left out" in capsys.readouterr().err


def test_all_benchmarks_run_in_processes_of_their_own_and_those_that_need_options_are_no_failures(monkeypatch, capsys):
    codes, started = {"drivers": 2, "raster": 1}, []
    monkeypatch.setattr(command.subprocess, "call", lambda words: started.append(words[-1]) or codes.get(words[-1], 0))
    assert command.main([]) == 1
    assert started == list(command.modules())
    assert "left out, they need options: drivers\nfailed: raster\n" in capsys.readouterr().err
    codes.pop("raster")
    assert command.main([]) == 0
    assert command.main(["drivers", "fit"]) == 1  # named, so it should have had them


def test_an_adaptation_that_a_signal_ended_gives_no_figures_and_no_avatar(monkeypatch, tmp_path):
    def stopped(video, out, **options):
        out.mkdir()
        return {"complete": options["budget"] == "3it", "iterations": 3}

    monkeypatch.setattr("adapt.job.adapt", stopped)
    assert adapting.adapt("a.mp4", tmp_path / "whole", budget="3it")["iterations"] == 3
    with pytest.raises(SystemExit, match="stopped after 3 steps"):
        adapting.adapt("a.mp4", tmp_path / "part", budget="9it")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


class _Expert:
    """Finds any lips and sound equally far apart."""

    @property
    def info(self):
        return {"features": {"name": "logmel", "size": 160, "weights": None}}

    def confidence_of(self, lips, features):
        assert len(lips) == len(features)
        return 0.0, 1.0, 0


def _speaking(opening: np.ndarray) -> np.ndarray:
    landmarks = np.zeros((len(opening), 478, 3), np.float32)
    landmarks[:, (33, 133), 0], landmarks[:, (362, 263), 0] = -0.5, 0.5
    landmarks[:, 14, 1] = opening
    return landmarks


def test_lips_are_held_against_the_speakers_at_the_same_frame():
    real = np.abs(np.sin(np.arange(30) / 3)).astype(np.float32)
    voice = voices.Voice("another's voice", np.zeros(30 * 640, np.float32), opening=real)

    def r(opening: np.ndarray) -> float:
        rows = voices.figures("ada, headstart, x", voice, _speaking(opening), np.zeros((30, 4)), _Expert())
        return {row["variant"]: row["value"] for row in rows}["correlation of the mouth's opening"]

    assert r(0.3 * real + 0.1) == pytest.approx(1.0, abs=1e-5)
    assert r(np.roll(real, 5)) < 0.5
    assert r(np.full(30, 0.2, np.float32)) == pytest.approx(0.0, abs=1e-5)


def test_silence_has_an_opening_and_no_synchrony():
    def variants(sound: np.ndarray) -> set[str]:
        voice = voices.Voice("silence", sound)
        rows = voices.figures("ada, headstart, x", voice, _speaking(np.zeros(30)), np.zeros((30, 4)), _Expert())
        return {row["variant"] for row in rows}

    silent = variants(np.zeros(30 * 640, np.float32))
    assert "mean of the mouth's opening" in silent
    assert "Sync-C (ours)" not in silent
    assert "Sync-C (ours)" in variants(np.ones(30 * 640, np.float32))


def test_nobody_is_held_against_lips_whose_sound_is_not_known_to_fit():
    people = ["cnn2_a", "may", "french_a"]
    assert [voices.neighbour(name, people) for name in people] == ["french_a", "french_a", "cnn2_a"]


def test_other_languages_are_those_that_the_person_does_not_speak(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    for name in ("en_radio", "fr_someone", "de_someone"):
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    options = SimpleNamespace(speech=tmp_path, seconds=0.5)
    heard = {person: list(voices.languages(person, options)) for person in ("may", "french_a")}
    assert [voice.name for voice in heard["may"]] == ["language de", "language fr"]
    assert [voice.name for voice in heard["french_a"]] == ["language de", "language en"]
    assert len(heard["may"][0].sound) == 12 * 640


def test_a_persons_languages_make_one_row_before_people_are_averaged():
    rows = [
        row("ada, headstart, language de", "Sync-C (ours)", 0.1, ""),
        row("ada, headstart, language it", "Sync-C (ours)", 0.3, ""),
        row("ada, headstart, own voice", "Sync-C (ours)", 0.9, ""),
        row("ada, headstart, filmed language pl", "Sync-C (ours)", 0.5, ""),
        row("ada, headstart, filmed language zh", "Sync-C (ours)", 0.7, ""),
    ]
    found = [(r["case"], r["value"]) for r in voices.over_languages(rows)]
    assert found == [
        ("ada, headstart, other languages", pytest.approx(0.2)),
        ("ada, headstart, other languages, filmed", pytest.approx(0.6)),
    ]


def test_the_loop_is_measured_beside_the_bare_step(tmp_path, monkeypatch):
    from tests.support.talkers import talkers

    monkeypatch.setattr(pretrain, "STEPS", 1)
    monkeypatch.setattr(pretrain, "ROUNDS", 1)
    rows = pretrain.measure("audio-expression", "tiny", talkers(), str(tmp_path))
    found = {r["variant"]: r for r in rows}
    loop, bare = found["the loop, a batch in memory"], found["bare forward and backward"]
    assert loop["ratio"] == pytest.approx(loop["value"] / bare["value"])
    cost = {r["variant"]: r["value"] for r in pretrain.cost_of_data(talkers(), rows)}
    assert cost["one pass, per hour of speech"] > cost["one pass, per identity"] > 0


def test_the_peak_memory_of_a_process_is_not_its_parents():
    held = np.ones(40_000_000, np.float32)  # 160 MB in this process
    assert pretrain.alone(peak_memory) < peak_memory() - held.nbytes / 2**20 / 2


def test_a_row_that_is_kept_says_which_commit_it_was_measured_on(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(results, "commit", lambda: "aaaa")
    results.write("fit", [row("old case", "numba", 1.0, "s")], echo=False)
    monkeypatch.setattr(results, "commit", lambda: "bbbb")
    for _ in range(2):  # kept twice: the first measurement counts
        results.write("fit", [*results.stored("fit")[:1], row("new case", "numba", 2.0, "s")], echo=False)
    old, new = results.stored("fit")
    assert (old["measured"]["commit"], new["measured"]["commit"]) == ("aaaa", "bbbb")
    old_line, new_line = results.table().splitlines()[-2:]
    assert "[aaaa; " in old_line
    assert "aaaa" not in new_line


def test_what_is_no_step_of_an_adaptation_adds_up():
    stages = {"planning": 1.0, "building": 2.0, "steps": 40.0, "measuring": 5.0, "saving": 0.5}
    rows = adapt.fixed_costs({"seconds": 50.0, "iterations": 800, "stages": stages}, "with prior")
    values = {r["case"].strip(): r["value"] for r in rows}
    assert values == {
        "all that is no step": 5.0,
        "planning": 1.0,
        "building": 2.0,
        "saving": 0.5,
        "the rest": 1.5,
        "a step": 50.0,
    }


def started_another() -> bool:
    return results.alone(peak_memory) > 0


def test_what_is_measured_alone_may_start_processes_of_its_own_as_readers_do():
    assert results.alone(started_another)
