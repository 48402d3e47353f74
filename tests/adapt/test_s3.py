"""Avatars and outputs in a bucket: the same as on disk, whole or not there, and one sentence for whatever is wrong."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest
import soundfile

import headstart
from adapt.avatar.avatar import load_avatar
from adapt.budget import Clock
from adapt.evaluate.evaluate import evaluate
from adapt.export import export
from adapt.job import adapt as make_avatar
from adapt.marking.certificates import sign_init
from adapt.marking.sign import available, read_manifest
from adapt.talk.talk import talk
from adapt.web.export import export_web
from cluster.storage import storage
from configs import InputError
from configs.errors import is_resumable
from shards.media.decode import read_frames
from tests.support.avatars import SIZE, make_world
from tests.support.s3_faults import BUCKET, s3_server

ADA = f"s3://{BUCKET}/people/ada"
OPTIONS = {"budget": "6it", "prior": "none", "size": SIZE}


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"), frames=56)


@pytest.fixture(autouse=True)
def _truth(world, monkeypatch):
    monkeypatch.setattr("shards.tracking.track_frames", world.segments)
    monkeypatch.setattr("shards.tracking.detect_landmarks", world.detect)


@pytest.fixture(scope="module")
def made(server, world, tmp_path_factory):
    """An avatar in the bucket, and what adapting it said; ``folder`` holds a copy of it on disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.tracking.track_frames", world.segments)
        result = make_avatar(world.video, ADA, **OPTIONS)
    return result, storage.download_tree(ADA, tmp_path_factory.mktemp("disk") / "ada")


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """The healed server; stand-ins are made in a folder of the test's own."""
    server.heal()
    monkeypatch.setenv("HEADSTART_STORAGE_RETRIES", "2")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return server


def rests(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "tmp").iterdir()]


def test_an_avatar_is_adapted_into_a_bucket_and_says_so(made, s3):
    result, disk = made
    assert result["avatar"] == ADA
    assert {"avatar.json", "weights.safetensors", "body.mp4"} <= set(storage.listdir(ADA))
    assert storage.listdir(f"s3://{BUCKET}/people") == ["ada"]
    assert "headstart-" not in (disk / "avatar.json").read_text()


def test_an_avatar_opened_from_a_bucket_is_that_of_the_disk_and_leaves_nothing(made, s3, tmp_path):
    from_bucket, from_disk = load_avatar(ADA, "cpu"), load_avatar(made[1], "cpu")
    assert (from_bucket.name, from_bucket.document) == (from_disk.name, from_disk.document)
    one, other = (avatar.render(avatar.tracked_drive([0, 9])) for avatar in (from_bucket, from_disk))
    assert (one == other).all()
    assert rests(tmp_path)
    del from_bucket
    assert not rests(tmp_path)


def test_speech_from_a_bucket_becomes_the_same_video_in_a_bucket(made, s3, world, tmp_path):
    soundfile.write(tmp_path / "hello.wav", world.sound[:16_000], 16_000)
    sound, out = f"s3://{BUCKET}/hello.wav", f"s3://{BUCKET}/{tmp_path.name}/hello.mp4"
    storage.publish(tmp_path / "hello.wav", sound)
    result = talk(ADA, sound, out, device="cpu")
    talk(made[1], tmp_path / "hello.wav", tmp_path / "hello.mp4", device="cpu")
    assert result["video"] == out
    (tmp_path / "got.mp4").write_bytes(storage.read_bytes(out))
    one, other = (list(read_frames(tmp_path / name)) for name in ("got.mp4", "hello.mp4"))
    assert len(one) == 25
    assert all((a == b).all() for a, b in zip(one, other, strict=True))
    assert not rests(tmp_path)


def test_an_export_of_a_bucket_s_avatar_has_the_bytes_of_the_disk_s(made, s3, tmp_path, monkeypatch):
    monkeypatch.setattr("adapt.avatar.provenance.now", lambda: "2026-01-01T00:00:00+00:00")
    out = f"s3://{BUCKET}/{tmp_path.name}/ada.ply"
    assert export(ADA, out)["out"] == out
    export(made[1], tmp_path / "ada.ply")
    assert storage.read_bytes(out) == (tmp_path / "ada.ply").read_bytes()


@pytest.mark.skipif(not available(), reason="c2pa-python is not installed (extra sign)")
def test_a_signed_export_in_a_bucket_has_its_manifest_beside_it(made, s3, tmp_path):
    signer = sign_init(tmp_path / "signer")
    out = f"s3://{BUCKET}/{tmp_path.name}/ada.glb"
    export(ADA, out, sign=(signer["certificate"], signer["key"]))
    for name in ("ada.glb", "ada.glb.c2pa"):
        (tmp_path / name).write_bytes(storage.read_bytes(f"s3://{BUCKET}/{tmp_path.name}/{name}"))
    manifest = read_manifest(tmp_path / "ada.glb")
    assert manifest is not None
    assert (manifest.state, manifest.provenance["avatar"]) == ("Valid", "ada")
    (row,) = headstart.detect([out])["files"]
    assert {mark["kind"]: mark["state"] for mark in row["marks"]} == {"c2pa": "valid", "statement": "found"}


def test_an_evaluation_in_a_bucket_has_its_record_page_and_video(made, s3, world, tmp_path, monkeypatch):
    monkeypatch.setattr("adapt.evaluate.tools.open_sync", lambda uri: "not asked for")
    out = f"s3://{BUCKET}/{tmp_path.name}/scores"
    assert evaluate(f"{ADA}/", world.video, f"{out}/", device="cpu")["report"] == f"{out}/report.html"
    assert storage.is_committed(out)
    assert {"metrics.json", "report.html", "track.mp4"} <= set(storage.listdir(out))
    assert storage.read_json(f"{out}/metrics.json")["drives"]["track"]["psnr_face"] > 10


def test_what_exists_is_refused_and_only_replaced_on_demand(made, s3, world, tmp_path):
    neighbour, out = f"s3://{BUCKET}/{tmp_path.name}/ada2", f"s3://{BUCKET}/{tmp_path.name}/ada"
    storage.upload_tree(made[1], neighbour)
    storage.upload_tree(made[1], out)
    with pytest.raises(InputError, match=rf"^output '{out}' exists; .*--overwrite$"):
        make_avatar(world.video, out, **OPTIONS)
    with pytest.raises(InputError, match="names a whole bucket"):
        make_avatar(world.video, f"s3://{BUCKET}/", overwrite=True, **OPTIONS)
    result = make_avatar(world.video, out, overwrite=True, **{**OPTIONS, "budget": "9it"})
    assert load_avatar(out, "cpu").document["metrics"] == result["metrics"] != made[0]["metrics"]
    assert load_avatar(neighbour, "cpu").document["metrics"] == made[0]["metrics"]


def outputs_of(world, made):
    """Name, command and what it replaces, of every kind of output."""
    avatar = made[1]
    return {
        "adapt": (lambda out: make_avatar(world.video, out, overwrite=True, **OPTIONS), "a folder with avatar.json"),
        "evaluate": (lambda out: evaluate(avatar, world.video, out, overwrite=True), "a folder with metrics.json"),
        "rgba": (lambda out: talk(avatar, "x.wav", out, background="rgba", overwrite=True), "a folder with provenance"),
        "page": (lambda out: export_web(avatar, out, overwrite=True), "a folder with avatar.js"),
        "frames": (lambda out: export(avatar, out, as_frames=True, overwrite=True), "a folder with sequence.json"),
        "file": (lambda out: export(avatar, f"{out}/me.ply", overwrite=True), "a file"),
    }


@pytest.mark.parametrize("kind", ["adapt", "evaluate", "rgba", "page", "frames", "file"])
def test_overwrite_replaces_no_prefix_or_file_of_anything_else(made, s3, world, tmp_path, kind):
    command, replaced = outputs_of(world, made)[kind]
    beach = f"s3://{BUCKET}/{tmp_path.name}/photos/me.ply/beach.jpg"
    storage.write_bytes(beach, b"sea")
    with pytest.raises(InputError, match=rf"is a folder; --overwrite replaces only {replaced}"):
        command(f"s3://{BUCKET}/{tmp_path.name}/photos")
    if kind != "file":
        with pytest.raises(InputError, match=rf"is a file; --overwrite replaces only {replaced}"):
            command(beach)
    assert storage.read_bytes(beach) == b"sea"


def test_frames_and_a_signed_file_are_replaced_with_what_belongs_to_them(made, s3, tmp_path):
    frames, file = (f"s3://{BUCKET}/{tmp_path.name}/{name}" for name in ("frames", "ada.ply"))
    for name in ("sequence.json", "000099.ply"):
        storage.write_bytes(f"{frames}/{name}", b"{}")
    assert export(made[1], frames, as_frames=True, overwrite=True)["frames"] < 99
    assert "000099.ply" not in storage.listdir(frames)
    storage.write_bytes(file, b"old")
    storage.write_bytes(f"{file}.c2pa", b"describes the old one")
    export(made[1], file, overwrite=True)
    assert not storage.exists(f"{file}.c2pa")


def test_an_interrupted_avatar_is_uploaded_and_goes_on_from_the_bucket(s3, world, tmp_path, monkeypatch):
    out, tick = f"s3://{BUCKET}/{tmp_path.name}/eve", Clock.tick

    def stop_after_two(clock):
        tick(clock)
        if clock.iterations == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("adapt.budget.Clock.tick", stop_after_two)
    assert not make_avatar(world.video, out, **{**OPTIONS, "budget": "400it"})["complete"]
    monkeypatch.setattr("adapt.budget.Clock.tick", tick)
    stopped = load_avatar(out, "cpu").document["progress"]["iterations"]
    assert stopped < 400
    assert "state.safetensors" in storage.listdir(out)
    result = make_avatar(world.video, out, resume=True, **{**OPTIONS, "budget": f"{stopped + 4}it"})
    assert (result["avatar"], result["iterations"], result["complete"]) == (out, stopped + 4, True)
    with pytest.raises(InputError, match=rf"^avatar '{out}' is complete"):
        make_avatar(world.video, out, resume=True, **{**OPTIONS, "budget": f"{stopped + 4}it"})
    assert load_avatar(out, "cpu").document["progress"]["complete"]


def test_a_failure_in_mid_training_leaves_the_last_good_avatar(s3, world, tmp_path, monkeypatch):
    out = f"s3://{BUCKET}/{tmp_path.name}/eve"

    def fails(fit, stage):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("adapt.fit.loop.Fit.measure", fails)
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        make_avatar(world.video, out, **OPTIONS)
    assert is_resumable(caught.value)
    assert not load_avatar(out, "cpu").document["progress"]["complete"]


@pytest.mark.parametrize("part", ["weights.safetensors", "_COMMIT.json"])
def test_an_upload_that_breaks_leaves_no_avatar_there_and_a_whole_one_here(s3, world, tmp_path, part):
    out = f"s3://{BUCKET}/{tmp_path.name}/eve"
    s3.plan = lambda method, path, number: "503" if method == "PUT" and part in path else None
    with pytest.raises(InputError, match=rf"^cannot write {out}/{part}: .* is kept in \S+/eve$") as caught:
        make_avatar(world.video, out, **OPTIONS)
    assert not is_resumable(caught.value)
    assert not storage.exists(out)
    with pytest.raises(InputError, match=rf"^cannot read {out}: no such file or folder; check the name$"):
        load_avatar(out, "cpu")
    assert load_avatar(str(caught.value).rsplit(" ", 1)[1], "cpu").name == "eve"


def test_a_folder_whose_upload_broke_off_is_no_avatar(made, s3, tmp_path):
    out = f"s3://{BUCKET}/{tmp_path.name}/half"
    storage.publish(made[1] / "avatar.json", f"{out}/avatar.json")
    with pytest.raises(InputError, match=rf"^{out}: no complete folder here"):
        load_avatar(out, "cpu")


COMMANDS = {
    "talk": ["talk", "AVATAR", "hello.wav", "--out", "hello.mp4"],
    "evaluate": ["evaluate", "AVATAR", "person.mp4", "--out", "scores"],
    "export": ["export", "AVATAR", "--out", "ada.ply"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("down", [False, True])
def test_an_avatar_that_cannot_be_read_is_one_sentence_and_status_2(s3, capsys, tmp_path, monkeypatch, command, down):
    monkeypatch.chdir(tmp_path)
    if down:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    nobody = f"s3://{BUCKET}/nobody"
    assert headstart.main([nobody if word == "AVATAR" else word for word in COMMANDS[command]]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith(f"headstart: cannot read {nobody}: ")
    assert ("AWS_ENDPOINT_URL" if down else "no such file or folder") in said
    assert not {path.name for path in tmp_path.iterdir()} & {"s3:", "hello.mp4", "scores", "ada.ply"}


@pytest.mark.parametrize(("bucket", "down"), [(BUCKET, True), ("no-such-bucket", False)])
def test_a_store_that_takes_nothing_is_told_before_the_work_begins(s3, world, capsys, monkeypatch, bucket, down):
    monkeypatch.setattr("shards.tracking.track_frames", lambda *a, **k: pytest.fail("tracked"))
    if down:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert headstart.main(["adapt", str(world.video), "--out", f"s3://{bucket}/ada3", "--prior", "none"]) == 2
    assert f"s3://{bucket}/ada3" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_demo_in_a_bucket_is_refused(s3, capsys):
    assert headstart.main(["demo", "--out", f"s3://{BUCKET}/demo"]) == 2
    assert "give a local folder" in capsys.readouterr().err


def test_a_folder_for_a_video_is_called_one(tmp_path):
    with pytest.raises(InputError, match="is a folder, expected a video file"):
        make_avatar(tmp_path, tmp_path / "out", **OPTIONS)
    for name in ("0001.png", "0002.png"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"is a folder of pictures \(0001\.png, \.\.\.\).* ffmpeg -framerate 25"):
        make_avatar(tmp_path, tmp_path / "out", **OPTIONS)
