"""The documentation's code runs: README's commands in their order, and every Python block of README and docs."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import headstart
from shards.media.sound import read_audio
from tests.support.s3_faults import BUCKET, s3_server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What the pages say for a workstation or a cluster, said for a test.
SMALL = (
    ("--budget 60s", "--budget 10it --size 96"),
    ("--config base", "--no-ray steps=2 batch_size=2"),
    ("--workers 8", "--workers 1"),
    ("videos/ ", "videos --size 192 "),
    ("--prior models:", "--budget 10it --size 96 --prior models:"),
    ("/3 ", "/1 "),
)


def blocks(page: Path) -> list[str]:
    """Python blocks of a page."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> list[str]:
    """``headstart`` lines of a page's indented blocks that come to an end, without comments."""
    lines = re.findall(r"^    (headstart [^\n#]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.strip() for line in lines if not line.startswith("headstart live")]  # a server


@pytest.fixture(scope="module")
def world(films, tmp_path_factory) -> Any:
    """Everything that the pages name: a clip, a speech, videos with consent, and a registry of one's own."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HEADSTART_HOME", str(folder / "home"))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        shutil.copyfile(films.stranger, folder / "me.mp4")
        for name in ("talk.mp4", "clip.mp4"):
            (folder / name).symlink_to("me.mp4")
        soundfile.write(folder / "speech.wav", read_audio(folder / "me.mp4")[:16_000], 16_000)
        rows = ["clip,identity,licence,consent,source"]
        (folder / "videos").mkdir()
        for number, film in enumerate(films.people):
            shutil.copyfile(film, folder / "videos" / f"p{number}.mp4")
            rows.append(f"p{number},p{number},CC0,generated,synthetic")
        (folder / "consent.csv").write_text("\n".join(rows) + "\n")
        yield folder


@pytest.fixture(scope="module")
def done(world) -> Path:
    """The world after README's commands."""
    for line in commands(ROOT / "README.md"):
        line += " "
        for said, small in SMALL:
            line = line.replace(said, small)
        if (world / "me.avatar").exists() and line.startswith("headstart adapt"):
            line += "--overwrite "
        assert headstart.main(shlex.split(line)[1:]) == 0, line
    (world / "ada").symlink_to("me.avatar")
    return world


def test_the_commands_of_the_readme_run_in_their_order(done):
    for made in ("me.avatar/avatar.json", "talking.mp4", "scores/metrics.json", "corpus/dataset.json"):
        assert (done / made).is_file(), made


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page) and page.name != "extending.md"], ids=lambda p: p.name
)
def test_the_python_of_a_page_runs(page, done, monkeypatch):
    """Blocks of a page share their names; what they take from the reader is put in."""
    rig = headstart.load_rig()
    names: dict[str, Any] = {
        "headstart": headstart,
        "np": np,
        "microphone": [np.zeros(16_000, np.float32)],
        "show": lambda frame: None,
        "identity": torch.zeros(1, rig.n_identity),
        "expression": torch.zeros(1, rig.n_expression),
        "eyelids": torch.zeros(1, 2),
        "gaze": torch.zeros(1, 2, 2),
    }
    if page.name == "README.md":  # it makes again what its commands made
        (done / "me.avatar").rename(done / "kept.avatar")
        (done / "talking.mp4").unlink()
    with s3_server():
        for text in blocks(page):
            exec(
                compile(text.replace("s3://bucket", f"s3://{BUCKET}").replace('"60s"', '"10it"'), page.name, "exec"),
                names,
            )
    if page.name == "README.md":
        assert (done / "talking.mp4").is_file()
