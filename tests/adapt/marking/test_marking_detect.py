"""``detect``: what it says about files with and without marks, and how it refuses wrong input."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image, ImageFilter, PngImagePlugin

from adapt.avatar.export.cloud import Cloud
from adapt.avatar.export.registry import format_of
from adapt.marking import sign
from adapt.marking.certificates import load_credentials, sign_init
from adapt.marking.code import KEY_VARIABLE, key_id, payload_of, watermark_key
from adapt.marking.detect import detect, exit_status
from adapt.marking.sign import Claim, sign_file
from adapt.marking.watermark import Watermark
from cluster.storage import storage
from configs import InputError
from headstart.cli.app import main

HASH = "fb49c7f7" + 56 * "0"
SENTENCE = "Synthetic video made by ann with headstart 0.1.0, avatar 'ann'"
STATEMENT = {"synthetic": True, "avatar": "ann", "avatar_sha256": HASH, "statement": SENTENCE}
TAGS = {"comment": SENTENCE, "headstart_provenance": json.dumps(STATEMENT)}


def picture(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    image = Image.fromarray(random.integers(0, 255, (64, 64, 3), np.uint8)).resize((384, 384))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(3)))


def video(path: Path, *, marked: bool, tags: dict[str, str] | None = None, codec: str = "libx264") -> Path:
    mark = Watermark(payload_of(HASH))
    options = {"movflags": "use_metadata_tags"} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", options=options) as container:
        container.metadata.update(tags or {})
        stream = container.add_stream(codec, rate=25, options={"preset": "veryfast"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = 384, 384, "yuv420p"
        for i in range(6):
            frame = mark.mark(picture()) if marked else picture()
            image = av.VideoFrame.from_ndarray(frame, format="rgb24")
            image.pts, image.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def png(path: Path, *, marked: bool, tags: dict[str, str] | None = None) -> Path:
    notes = PngImagePlugin.PngInfo()
    for key, value in (tags or {}).items():
        notes.add_text(key, value)
    frame = Watermark(payload_of(HASH)).mark(picture()) if marked else picture()
    Image.fromarray(frame).save(path, pnginfo=notes)
    return path


def row(path: Path, **more: str) -> dict:
    (only,) = detect([path], **more)["files"]
    return only


def states(found: dict) -> dict[str, str]:
    return {mark["kind"]: mark["state"] for mark in found["marks"]}


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_marked_video_is_synthetic_and_names_its_avatar(tmp_path: Path, suffix: str) -> None:
    found = row(video(tmp_path / f"a{suffix}", marked=True, tags=TAGS))
    assert found["synthetic"] is True
    assert found["avatar"] == "ann"
    assert found["confidence"] > 1 - 1e-6
    assert states(found)["statement"] == "found"
    assert states(found)["watermark"] == "found"
    assert set(found) == {"file", "synthetic", "avatar", "confidence", "marks"}
    assert all(set(mark) == {"kind", "state", "detail"} for mark in found["marks"])


def test_a_webm_keeps_its_statement(tmp_path: Path) -> None:
    assert states(row(video(tmp_path / "a.webm", marked=False, tags=TAGS, codec="libvpx")))["statement"] == "found"


def test_without_the_statement_the_watermark_names_the_avatars_hash(tmp_path: Path) -> None:
    found = row(video(tmp_path / "a.mp4", marked=True))
    assert (found["synthetic"], found["avatar"]) == (True, HASH[:8])
    assert states(found) == {"c2pa": states(found)["c2pa"], "statement": "absent", "watermark": "found"}


def test_without_any_mark_a_video_is_unknown_and_the_status_is_3(tmp_path: Path) -> None:
    report = detect([video(tmp_path / "a.mp4", marked=False)])
    (found,) = report["files"]
    assert (found["synthetic"], found["avatar"], found["confidence"]) == (None, None, 0.0)
    assert exit_status(report) == 3


def test_the_comment_alone_is_a_statement(tmp_path: Path) -> None:
    found = row(video(tmp_path / "a.mp4", marked=False, tags={"comment": SENTENCE}))
    assert (found["synthetic"], found["avatar"]) == (True, "ann")


def test_the_comment_of_a_stranger_is_no_statement(tmp_path: Path) -> None:
    assert row(video(tmp_path / "a.mp4", marked=False, tags={"comment": "Synthetic music by ann"}))["synthetic"] is None


def test_a_damaged_statement_is_said_to_be_damaged(tmp_path: Path) -> None:
    found = row(png(tmp_path / "a.png", marked=False, tags={"Headstart_Provenance": '{"synthetic": tr'}))
    assert states(found)["statement"] == "damaged"


def test_a_statement_about_another_avatar_is_pointed_out(tmp_path: Path) -> None:
    other = {"headstart_provenance": json.dumps({**STATEMENT, "avatar_sha256": "0123" * 16})}
    found = row(png(tmp_path / "a.png", marked=True, tags=other))
    assert "names another avatar (01230123)" in found["marks"][-1]["detail"]


def test_pictures_are_read_in_every_mode(tmp_path: Path) -> None:
    marked = Image.open(png(tmp_path / "a.png", marked=True, tags=TAGS))
    marked.convert("RGBA").save(tmp_path / "b.png")
    marked.convert("L").save(tmp_path / "c.webp", quality=90)
    marked.save(tmp_path / "d.jpg", quality=80)
    marked.quantize(256).save(tmp_path / "e.png")
    for name in ("a.png", "b.png", "c.webp", "d.jpg", "e.png"):
        assert states(row(tmp_path / name))["watermark"] == "found", name


def test_a_gif_keeps_the_watermark(tmp_path: Path) -> None:
    frame = Image.fromarray(Watermark(payload_of(HASH)).mark(picture())).quantize(256)
    frame.save(tmp_path / "a.gif", save_all=True, append_images=[frame, frame], duration=100)
    assert row(tmp_path / "a.gif")["avatar"] == HASH[:8]


def test_a_folder_stands_for_its_media_and_a_folder_of_frames_for_one_item(tmp_path: Path) -> None:
    png(tmp_path / "a.png", marked=True)
    (tmp_path / "notes.txt").write_text("not media")
    frames = tmp_path / "talk"
    frames.mkdir()
    for i in range(3):
        png(frames / f"{i:06d}.png", marked=True)
    (frames / "provenance.json").write_text(json.dumps(STATEMENT))
    report = detect([tmp_path])
    assert [Path(found["file"]).name for found in report["files"]] == ["a.png", "talk"]
    assert states(report["files"][1]) == {"c2pa": "absent", "statement": "found", "watermark": "found"}
    assert exit_status(report) == 0


def test_one_marked_file_among_others_gives_status_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(png(tmp_path / "a.png", marked=False)), str(png(tmp_path / "b.png", marked=True))]
    assert main(["detect", *paths]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith("a.png: unknown") for line in lines)
    assert any(line.endswith("b.png: synthetic, avatar fb49c7f7 (more than 99.9999 % sure)") for line in lines)
    assert main(["detect", paths[0]]) == 3


def test_a_damaged_file_of_a_folder_is_reported_and_the_others_are_read(tmp_path: Path) -> None:
    png(tmp_path / "b.png", marked=True)
    (tmp_path / "a.mp4").write_bytes(b"nothing of the kind")
    damaged, marked = detect([tmp_path])["files"]
    assert marked["synthetic"]
    assert damaged["synthetic"] is None
    assert states(damaged) == {"file": "damaged"}
    assert "a.mp4" in damaged["marks"][0]["detail"]


# --- exported heads -------------------------------------------------------------------------------------------------

HEADS = ("a.ply", "a.glb", "a.spz", "a.usdc", "a.usdz")


def head(path: Path) -> Path:
    """An exported head of three Gaussians, with a statement."""
    if path.suffix.startswith(".usd"):
        pytest.importorskip("pxr")
    ones = np.ones((3, 3), np.float32)
    cloud = Cloud.make(ones, np.tile([1.0, 0, 0, 0], (3, 1)), 0.01 * ones, 0.5 * np.ones(3), 0.5 * ones)
    format_of(path).write(path, cloud, {**STATEMENT, "consent": "Ann agreed"})
    return path


@pytest.mark.parametrize("name", HEADS)
def test_an_exported_head_says_what_it_is(tmp_path: Path, name: str) -> None:
    found = row(head(tmp_path / name))
    assert (found["synthetic"], found["avatar"], found["confidence"]) == (True, "ann", 0.9)
    assert states(found) == {"c2pa": "absent", "statement": "found"}
    assert "Ann agreed" in found["marks"][1]["detail"]


@pytest.mark.parametrize("name", HEADS)
def test_the_manifest_beside_a_head_is_read(tmp_path: Path, name: str) -> None:
    pytest.importorskip("c2pa")
    made = sign_init(tmp_path / "keys")
    path = head(tmp_path / name)
    claim = Claim(title=name, provenance={"avatar": "ann"}, composite=False)
    credentials = load_credentials(made["certificate"], made["key"])
    assert credentials is not None
    sign_file(path, credentials, claim)
    found = row(path)
    assert states(found) == {"c2pa": "valid", "statement": "found"}
    assert found["confidence"] == 0.99
    path.write_bytes(path.read_bytes() + b"\0")
    manifest = sign.read_manifest(path)
    assert manifest is not None
    assert manifest.state == "Invalid"


def test_a_folder_of_heads_is_read_whole(tmp_path: Path) -> None:
    for name in ("a.ply", "b.glb", "c.spz"):
        head(tmp_path / name)
    report = detect([tmp_path])
    assert [found["synthetic"] for found in report["files"]] == [True, True, True]


def test_a_head_of_another_program_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(b"ply\r\nformat ascii 1.0\r\nelement vertex 0\r\nend_header\r\n")
    assert states(row(path))["statement"] == "absent"


@pytest.mark.parametrize("name", [name for name in HEADS if "usd" not in name])
def test_a_broken_head_is_one_sentence(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x1f\x8b nothing of the kind")
    if name == "a.spz":
        # SPZ says nothing about itself but in a gzip comment, so a file without one is unknown.
        assert states(row(path))["statement"] == "absent"
        return
    with pytest.raises(InputError, match=name) as error:
        detect([path])
    assert "\n" not in str(error.value)
    assert "InputError" not in str(error.value), "the format's own sentence says more"


def test_files_and_folders_in_a_bucket_are_read(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    for path in (head(tmp_path / "a.ply"), png(tmp_path / "b.png", marked=True)):
        storage.write_bytes(f"{url}/out/{path.name}", path.read_bytes())
    storage.write_bytes(f"{url}/out/notes.txt", b"not media")
    one, all_of_them = detect([f"{url}/out/a.ply"]), detect([f"{url}/out"])
    assert [found["file"] for found in one["files"]] == [f"{url}/out/a.ply"]
    assert [found["file"] for found in all_of_them["files"]] == [f"{url}/out/a.ply", f"{url}/out/b.png"]
    assert all(found["synthetic"] for found in all_of_them["files"])


def test_a_mark_of_another_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "a secret of the makers"
    tags = {"headstart_provenance": json.dumps({**STATEMENT, "watermark_key": key_id(watermark_key(secret))})}
    path = tmp_path / "a.png"
    notes = PngImagePlugin.PngInfo()
    notes.add_text("headstart_provenance", tags["headstart_provenance"])
    Image.fromarray(Watermark(payload_of(HASH), key=secret).mark(picture())).save(path, pnginfo=notes)
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    found = row(path)
    assert states(found)["watermark"] == "other key"
    assert secret not in json.dumps(found)
    assert states(row(path, key=secret))["watermark"] == "found"


def test_without_the_library_signatures_are_said_to_be_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adapt.marking.detect.available", lambda: False)
    found = row(png(tmp_path / "a.png", marked=True))
    assert states(found)["c2pa"] == "not checked"
    assert "headstart[sign]" in found["marks"][0]["detail"]
    assert sign.INSTALL in found["marks"][0]["detail"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.mp4", None, "no such file"),
        ("a.txt", b"hello", "neither video"),
        ("a.mp4", b"not a video at all", "not readable"),
        ("a.png", b"\x89PNG\r\n\x1a\n but no more", "not readable as a picture"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        detect([path])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_video_without_one_readable_frame_is_refused(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", marked=False)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat")
    size = int.from_bytes(content[start - 4 : start], "big") - 8
    content[start + 4 : start + 4 + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(InputError, match="no picture can be decoded"):
        detect([path])


def test_an_empty_folder_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no video"):
        detect([tmp_path])
    with pytest.raises(InputError, match="no file given"):
        detect([])


def test_a_sound_has_no_watermark_and_is_unknown(tmp_path: Path) -> None:
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros(1600, np.float32), 16_000)
    assert set(states(row(tmp_path / "a.wav"))) == {"c2pa", "statement"}
