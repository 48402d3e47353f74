"""The demo's page holds everything inside itself, says what failed, and shows in a real browser."""

from __future__ import annotations

import argparse
import asyncio
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adapt.avatar.provenance import Provenance, read_record
from benchmarks import chromium
from configs import InputError
from headstart.cli.demo import show
from headstart.cli.output import console
from headstart.demo.cast import HeldOutPerson, real_cast
from headstart.demo.corpus import demo_folder
from headstart.demo.people import _side_by_side
from headstart.demo.priors import train_prior
from headstart.demo.report import best_of, comparison, line_chart, smooth, table, write_demo_report
from headstart.demo.speed import FEWEST, steps_that_fit
from headstart.demo.story import demo
from headstart.demo.telling import Story
from pretrain.names import prior_names
from pretrain.prior import find_prior
from shards.synthetic.mp4 import write_mp4


def film(path: Path, seconds: float = 4.4, side: int = 32) -> Path:
    frames = (np.full((side, side, 3), 5 * (i % 50), np.uint8) for i in range(round(25 * seconds)))
    write_mp4(path, frames, 0.1 * np.sin(np.arange(round(16000 * seconds)) / 9).astype(np.float32))
    return path


def scores(face: float | None) -> dict:
    drive = {"psnr_face": face, "lmd": 2.0, "jitter_lips": 1.2, "lpips": None, "null_reasons": {"lpips": "no weights"}}
    return {"drives": {"track": drive, "audio": {**drive, "psnr_face": 21.0}}, "fps": 31.0, "frames": 40, "size": 64}


@pytest.fixture
def story(tmp_path) -> Story:
    """A short life: two people, one prior, one person, one failure, a name that would break a page."""
    picture = np.full((48, 48, 3), 90, np.uint8)
    Image.fromarray(picture).save(tmp_path / "heads.png")
    told = Story("Invented people")
    told.machine = {"processor": "test <CPU>", "cores": 2, "commit": "abc1234"}
    told.corpus = {
        "people": [
            {"identity": "<b>ann</b>", "seconds": 8.0, "licence": "CC0-1.0", "consent": "made up", "picture": picture},
            {"identity": "bob", "seconds": 7.5, "licence": "unknown", "consent": "unknown", "picture": picture},
        ],
        "identities": 2, "clips": 2, "segments": 8, "frames": 388, "hours": 0.0043, "bytes": 3_000_000,
        "left_out": ["person-1"], "unknown": ["bob"], "real": False,
    }  # fmt: skip
    told.priors["expression-visual"] = {
        "rows": [{"identity": "bob", "face": 27.25, "copy": 24.0}, {"identity": "cid", "face": 25.25, "copy": None}],
        "pictures": {"one_shot": str(tmp_path / "heads.png")}, "losses": list(np.linspace(2, 1, 80)), "steps": 80,
        "seconds": 12.0, "samples_per_second": 9.0, "peak_memory_mb": 900.0, "weights_bytes": 2_000_000,
        "weights_sha256": "f" * 64, "validation": {"psnr_prior": 27.251, "psnr_copy": 24.0},
        "registered": {"name": "expression-visual", "version": 3},
        "uri": "models:/expression-visual@demo", "dataset": {"identities": ["a"], "held_out": ["bob"]},
    }  # fmt: skip
    variants = {}
    for name, face in (("with priors", 29.5), ("without", 27.5)):
        avatar = tmp_path / name.split()[0]
        avatar.mkdir()
        Image.fromarray(picture).save(avatar / "preview.jpg")
        variants[name] = {
            "avatar": str(avatar), "curve": [[1, 20.0], [5, face]], "train_seconds": 4.0, "iterations": 100,
            "seconds": 20.0, "size": 64, "driver": "prior", "bytes": 4_000_000, "scores": scores(face),
        }  # fmt: skip
    spoken = {
        "video": str(film(tmp_path / "talk.mp4", 1.0)),
        "fps": 30.0,
        "driver": "prior",
        "truth": True,
        "speech": "s",
    }
    told.held_out = [{"identity": "person-1", "licence": "CC0-1.0", "consent": "synthetic", "words": "a blue boat",
                    "variants": variants, "video": spoken}]  # fmt: skip
    with told.stage("a stage that works"):
        pass
    with told.stage("a stage that fails", vital=False):
        raise InputError("the <disk> is full")
    told.toy = ["Two people are not many."]
    return told


# ---------------------------------------------------------------------------------------------------------- the page


def test_the_page_needs_nothing_beside_it(story, tmp_path):
    write_demo_report(tmp_path / "report.html", story)
    page = (tmp_path / "report.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]{1,40})', page)
    assert sources
    assert all(source.startswith(("data:", "#")) for source in sources)
    assert not re.search(r"@import|url\(", page)


def test_the_page_tells_who_what_and_what_failed(story, tmp_path):
    write_demo_report(tmp_path / "report.html", story)
    page = (tmp_path / "report.html").read_text()
    told = [
        "bob",
        "CC0-1.0",
        "person-1",
        "models:/expression-visual@demo",
        "27.25",
        "texture copy",
        "29.50 dB",
        "unknown",
    ]
    told += ["no weights", "a blue boat", "Two people are not many.", "a stage that fails", "abc1234"]
    assert [text for text in told if text not in page] == []
    assert "&lt;b&gt;ann&lt;/b&gt;" in page
    assert "the &lt;disk&gt; is full" in page
    assert "<disk>" not in page


def test_a_page_without_a_video_says_so(story, tmp_path):
    story.held_out[0]["video"] = None
    write_demo_report(tmp_path / "report.html", story)
    assert "No talking video was made" in (tmp_path / "report.html").read_text()


def test_the_better_variant_is_marked_by_the_direction_of_its_measure():
    assert best_of({"a": 30.0, "b": 29.0}, "higher") == "a"
    assert best_of({"a": 30.0, "b": 29.0}, "lower") == "b"
    assert best_of({"a": 0.7, "b": 1.1}, "1") == "b"
    assert best_of({"a": 1.0, "b": None}, "higher") is None
    assert best_of({"a": 1.0, "b": 1.0}, "higher") is None


def test_measures_that_nobody_has_are_not_rows():
    compared = comparison({"with": {"scores": scores(30.0)}, "without": {"scores": scores(None)}})
    labels = [row["label"] for row in compared["rows"]]
    assert "PSNR, face" in labels
    assert "LPIPS" not in labels
    face = compared["rows"][labels.index("PSNR, face")]
    assert [cell["text"] for cell in face["cells"]] == ["30.00 dB", "–", "21.00 dB", "21.00 dB"]
    assert not any(cell["best"] for cell in face["cells"])
    assert comparison({"with": {}}) is None


def test_the_mean_row_leaves_out_what_is_missing():
    columns, cells = table([{"who": "a", "x": 1.0, "y": None}, {"who": "b", "x": 3.0, "y": 5.0}])
    assert columns == ["who", "x", "y"]
    assert cells[-1] == ["mean", "2.000", "5.000"]


def test_curves_stay_inside_their_chart():
    svg = line_chart({"loss <1>": smooth(np.linspace(3, 1, 500)), "flat": np.array([[0.0, 1.0], [9.0, 1.0]])}, "x", "y")
    points = np.array([float(v) for line in re.findall(r'points="([^"]+)"', svg) for v in re.split("[ ,]", line)])
    x, y = points.reshape(-1, 2).T
    assert "&lt;1&gt;" in svg
    assert 50 <= x.min() <= x.max() <= 640
    assert 20 <= y.min() <= y.max() <= 200


# What is on the page once its pictures and its video have come.
READY = """document.querySelector('video').duration && document.querySelector('video').videoWidth
  && document.readyState === 'complete' && [...document.images].every((image) => image.complete)"""
SEEN = """(() => { const v = document.querySelector('video'), images = [...document.images];
  return { broken: images.filter((i) => !i.naturalWidth).length, images: images.length,
    wide: document.documentElement.scrollWidth - innerWidth, video: [v.videoWidth, v.duration] }; })()"""


@pytest.mark.skipif(chromium.find_chromium() is None, reason="needs Chromium (apt-get install chromium)")
@pytest.mark.parametrize("width", [1200, 390])
def test_a_real_browser_shows_every_picture_and_the_video(story, tmp_path, width):
    pytest.importorskip("aiohttp")
    write_demo_report(tmp_path / "report.html", story)

    async def look():
        async with chromium.opened((tmp_path / "report.html").as_uri(), size=(width, 900)) as page:
            await page.until(READY)
            assert page.errors == []
            return await page.run(SEEN)

    seen = asyncio.run(look())
    assert seen["images"] == 5
    assert seen["broken"] == 0
    assert seen["video"][0] == 32
    assert seen["video"][1] == pytest.approx(1.0, abs=0.1)
    assert seen["wide"] <= 0, "the page is wider than the window"


# ------------------------------------------------------------------------------------------------------ orchestration


def test_a_failure_that_is_vital_ends_the_demo_and_is_told(story):
    with pytest.raises(ValueError, match="boom"), story.stage("vital"):
        raise ValueError("boom")
    assert story.failed[-1] == {"stage": "vital", "reason": "boom"}
    assert story.stages[-1]["name"] == "vital"


def test_every_fifth_person_stays_out_and_say_what_is_not_in_their_clip(tmp_path):
    folder = tmp_path / "clips"
    for name in "abcdefghij":
        film(folder / f"{name}.mp4")
    cast = real_cast(folder, None, None, 2, None)
    assert cast.left_out == ["e", "j"]
    assert [person.identity for person in cast.held_out] == ["e", "j"]
    assert {video.stem for video in cast.videos} == set("abcdfghi")
    assert cast.held_out[0].speech.stem == "j"
    assert cast.held_out[0].truth is None


def test_a_second_clip_of_the_same_person_is_the_truth_of_the_unheard_speech(tmp_path):
    folder = tmp_path / "clips"
    for name in ("ann_1", "ann_2", "bob", "cid"):
        film(folder / f"{name}.mp4", 4.8 if name == "ann_1" else 4.4)
    rows = ["clip,identity,licence,consent,source", "ann_*,ann,CC-BY,yes,me"]
    rows += [f"{name},{name},CC-BY,yes,me" for name in ("bob", "cid")]
    (folder / "consent.csv").write_text("\n".join(rows))
    cast = real_cast(folder, None, ["ann"], 2, None)
    person = cast.held_out[0]
    assert (person.video.stem, person.speech.stem, person.truth.stem) == ("ann_1", "ann_2", "ann_2")
    assert (person.licence, person.consent) == ("CC-BY", "yes")
    assert {video.stem for video in cast.videos} == {"bob", "cid"}


def test_wrong_hold_outs_and_outputs_are_sentences(tmp_path):
    folder = tmp_path / "clips"
    for name in "abc":
        film(folder / f"{name}.mp4")
    with pytest.raises(InputError, match="no such person"):
        real_cast(folder, None, ["zoe"], 1, None)
    with pytest.raises(InputError, match="a corpus needs two or more"):
        real_cast(folder, None, ["a", "b"], 1, None)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match="not a demo's folder"):
        demo(tmp_path / "mine")
    wrong = [({"minutes": 0}, "--minutes 0"), ({"identities": 1}, "--identities 1"), ({"people": 0}, "--people 0"),
             ({"seed": -1}, "--seed -1"), ({"budget": "soon"}, "budget 'soon'"), ({"recipe": "ggtaker"}, "did you mean 'ggtalker'"),
             ({"videos": tmp_path / "gone"}, "no such file or folder")]  # fmt: skip
    for options, words in wrong:
        with pytest.raises(InputError, match=words):
            demo(tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()
    assert demo_folder(tmp_path / "new").is_dir()


def test_the_steps_of_a_prior_fit_its_time_and_stay_sensible():
    assert steps_that_fit(60.0, 0.2, 1000) == 300
    assert steps_that_fit(1.0, 10.0, 1000) == FEWEST
    assert steps_that_fit(1e6, 1e-9, 200) == 200


def test_every_prior_says_what_it_learns_and_which_figures_come_first():
    for name in prior_names():
        prior = find_prior(name)
        assert prior.learns
        assert prior.headlines
        assert 0 < prior.budget_share < 1


def test_side_by_side_is_as_long_as_the_avatar_and_keeps_its_sound_and_consent(tmp_path):
    from shards.media.probe import video_info

    said = Provenance.make(avatar="ada", consent="Ada agreed", licence="CC0-1.0")
    _side_by_side(film(tmp_path / "a.mp4", 0.6, 48), film(tmp_path / "b.mp4", 1.0, 32), tmp_path / "both.mp4", said)
    info = video_info(tmp_path / "both.mp4")
    record = read_record(dict(info.tags))
    assert [record[name] for name in ("avatar", "consent", "licence")] == ["ada", "Ada agreed", "CC0-1.0"]
    assert (info.width, info.height, info.has_audio) == (64, 32, True)
    assert info.seconds == pytest.approx(1.0, abs=0.1)


def test_the_summary_names_people_priors_scores_and_failures(story):
    result = {
        "corpus": story.corpus, "seconds": 99.0, "failed": story.failed, "refused": [], "toy": story.toy,
        "video": "v", "report": "r",
        "priors": {"expression-visual": story.priors["expression-visual"]},
        "held_out": [{"identity": "heldout-1", "variants": {"none": {"seconds": 20.0, "scores": scores(27.5)["drives"]}}}],
    }  # fmt: skip
    stream = io.StringIO()
    show(console(stream), result, argparse.Namespace())
    for told in ("1 min 39 s", "heldout-1", "27.50", "expression-visual", "a stage that fails: the <disk> is full"):
        assert told in stream.getvalue(), told


def test_a_held_out_person_knows_what_is_unknown():
    person = HeldOutPerson("x", Path("a.mp4"), Path("b.wav"))
    assert (person.licence, person.consent, person.truth) == ("unknown", "unknown", None)


def test_a_training_that_was_asked_to_end_ends_the_demo(monkeypatch, tmp_path):
    monkeypatch.setattr("headstart.demo.priors.pretrain", lambda *_, **__: {"finished": False})
    story = Story("Invented people")
    with pytest.raises(KeyboardInterrupt), story.stage("pretraining", vital=False):
        train_prior("sync-expert", "data", tmp_path, 30, 0, False, [])
    assert not story.failed
