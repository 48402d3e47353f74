"""Tars of other tools become a dataset: people as stated, one sentence for each fault, resumable, nothing unpacked."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from cluster.storage import storage
from cluster.storage.remote import filesystem
from configs import InputError
from shards import open_dataset
from shards.build.build import build
from shards.build.from_tars import find_tars
from shards.check.verify import verify
from shards.media.sound import read_audio
from shards.people.forget import forget
from shards.people.stated import Statements, identity_name, stated_keys
from shards.tar.foreign import read_samples
from tests.support.fake_tracker import TRACKER
from tests.support.foreign_tars import plan, sample, write_tar
from tests.support.s3_faults import BUCKET, s3_server
from tests.support.samples import make_dataset

KEYS = ["identity=speaker.id", "licence=licence"]
HEADER = "clip,identity,licence,consent,source\n"


def run(tars, out, **options):
    options = {"json_keys": KEYS, "workers": 0, **options}
    return build([], out, tars=[str(tar) for tar in tars], tracker=TRACKER, samples_per_shard=4, **options)


def reasons(result) -> dict[str, str]:
    return {entry["clip"]: entry["reason"] for entry in result["refused"]}


@pytest.fixture
def tars(tmp_path) -> Path:
    """Two tars: four samples of three people, sample names repeat."""
    write_tar(tmp_path / "t/data-000.tar", [*sample("a/0001", "ann", 1), *sample("a/0002", "bob", 2)])
    write_tar(tmp_path / "t/data-001.tar", [*sample("a/0001", "ann", 3), *sample("a/0002", "cyd", 4)])
    return tmp_path / "t"


def test_tars_behind_a_brace_pattern_become_a_dataset_that_verifies(tars, tmp_path):
    result = run([tars / "data-{000..001}.tar"], tmp_path / "d")
    assert (result["identities"], result["clips"], result["segments"], result["refused"]) == (3, 4, 8, [])
    assert verify(str(tmp_path / "d")) == {"ok": True, "samples": 8, "broken": []}
    dataset = open_dataset(tmp_path / "d")
    assert dataset.identities == ["ann", "bob", "cyd"]
    assert dataset.licences["bob"] == ["CC BY 4.0"]
    assert {row.identity for row in dataset.samples if row.clip.startswith("0001-")} == {"ann"}
    meta = dataset.read(0).meta
    assert meta["source_file"] in {f"data-00{i}/a/000{j}.mp4" for i in (0, 1) for j in (1, 2)}
    assert not list((tmp_path / "d").glob(".tmp-*"))


def test_running_again_reads_no_finished_tar_and_more_tars_do_only_the_rest(tars, tmp_path, monkeypatch):
    run([tars], tmp_path / "d")
    before = (tmp_path / "d/dataset.json").read_bytes()
    opened = []
    real = read_samples
    monkeypatch.setattr(
        "shards.build.tar_clips.read_samples", lambda url, *rest: opened.append(url) or real(url, *rest)
    )
    assert run([tars], tmp_path / "d")["built_clips"] == 0
    assert (tmp_path / "d/dataset.json").read_bytes() == before
    assert opened == []
    write_tar(tars / "data-002.tar", sample("0001", "dan", 5))
    assert run([tars], tmp_path / "d")["built_clips"] == 1
    assert [Path(url).name for url in opened] == ["data-002.tar"]


def test_copies_of_a_video_in_tars_have_one_identity(tars, tmp_path):
    run([tars / "data-000.tar"], tmp_path / "d")
    members = [
        *sample("0001", "eve", 1),
        *sample("0002", "fay", 7),
        *sample("0003", "gil", 7),
        *sample("0004", "fay", 7),
    ]
    result = run([write_tar(tars / "more.tar", members), tars / "data-001.tar"], tmp_path / "d")
    found = reasons(result)
    assert set(found) == {"more/0001", "more/0003"}
    assert "identity 'ann', which is used" in found["more/0001"]
    assert "identity 'fay', which is used" in found["more/0003"]
    assert open_dataset(tmp_path / "d").identities == ["ann", "bob", "cyd", "fay"]
    assert run([tars / "more.tar"], tmp_path / "d")["built_clips"] == 0


def test_an_interrupted_tar_goes_on_with_its_first_unfinished_sample(tmp_path, monkeypatch):
    members = [member for i in range(8) for member in sample(f"{i:04d}", f"p{i}", i)]
    tar = write_tar(tmp_path / "data.tar", members)
    real, seen = TRACKER, []

    def dies(path, settings):
        from tests.support.fake_tracker import track

        seen.append(path)
        if len(seen) == 6:
            raise KeyboardInterrupt
        return track(path, settings)

    monkeypatch.setattr("tests.support.fake_tracker.dies", dies, raising=False)
    with pytest.raises(KeyboardInterrupt):
        build(
            [],
            tmp_path / "d",
            tars=[str(tar)],
            json_keys=KEYS,
            workers=0,
            samples_per_shard=4,
            tracker=real[:-5] + "dies",
        )
    assert verify(str(tmp_path / "d"))["ok"]
    kept = open_dataset(tmp_path / "d").info["clips"]
    assert kept == 4, "two clips a shard, the third shard was being written"
    assert run([tar], tmp_path / "d")["built_clips"] == 8 - kept
    keys = [row.key for row in open_dataset(tmp_path / "d").samples]
    assert len(keys) == len(set(keys)) == 16
    assert verify(str(tmp_path / "d"))["ok"]
    assert not list((tmp_path / "d").glob(".tmp-*"))


def test_a_sample_that_kills_its_worker_is_refused_alone(tmp_path):
    members = [*sample("0001", "ann", 1), ("0002.mp4", plan({"crash": True})), *sample("0003", "cyd", 3)]
    write_tar(tmp_path / "data.tar", members)
    result = run([tmp_path / "data.tar"], tmp_path / "d", workers=1, json_keys=[])
    assert {name: "crashed on it 2 times" in reason for name, reason in reasons(result).items()} == {
        "data/0002.mp4": True
    }
    assert result["clips"] == 2


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("0002.mp4", plan()), ("0002.json", b"{oops")], "its JSON cannot be read"),
        ([("0002.mp4", plan()), ("0002.json", b"[1]")], "its JSON holds no object"),
        ([("0002.mp4", plan()), ("0002.json", b"{}")], "has no 'speaker.id' (identity)"),
        ([("0002.mp4", plan())], "has no JSON and so no 'speaker.id'"),
        (sample("0002", person=["x"]), "has list under 'speaker.id'"),
        ([("0002.json", b"{}"), ("0002.wav", b"")], "has no video (members: json, wav)"),
        (
            [("0002.left.mp4", plan()), ("0002.right.mp4", plan()), ("0002.json", b"{}")],
            "holds 2 videos (left.mp4, right.mp4)",
        ),
        ([("0002.mp4", plan()), ("0002.wav", b""), ("0002.flac", b""), ("0002.json", b"{}")], "holds 2 sounds"),
        ([("0002.mp4", b"no plan"), sample("0002", "bob")[1]], "not a video"),
        (sample("../../0002", "bob"), "its name leads outside the tar"),
        (sample("0001", "ann"), "its members lie in two places of the tar"),
    ],
)
def test_what_is_wrong_with_a_sample_is_one_sentence_and_costs_no_other(tmp_path, members, reason):
    tar = write_tar(tmp_path / "data.tar", [*sample("0001", "ann", 1), *sample("0003", "ann", 3), *members])
    result = run([tar], tmp_path / "d")
    (said,) = reasons(result).values()
    assert reason in said
    assert str(tmp_path) not in said
    assert result["clips"] == 2
    assert reason in " ".join(entry["reason"] for entry in run([tar], tmp_path / "d")["refused"])
    page = (tmp_path / "d/report.html").read_text()
    assert "0001.mp4" in page or "data/" in page


def test_nothing_is_written_outside_and_no_link_is_followed(tmp_path):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(plan(seed=9))
    tar = tmp_path / "t/data.tar"
    write_tar(tar, [*sample("0001", "ann", 1), *sample("/etc/0002", "bob"), *sample("x/../../0003", "bob")])
    with tarfile.open(tar, "a") as archive:
        for name, kind in (
            ("0004.mp4", tarfile.SYMTYPE),
            ("0005.mp4", tarfile.LNKTYPE),
            ("0006.mp4", tarfile.FIFOTYPE),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    before = set(tmp_path.rglob("*"))
    result = run([tar], tmp_path / "d")
    assert {path for path in tmp_path.rglob("*") if tmp_path / "d" not in (path, *path.parents)} == before
    assert result["clips"] == 1
    assert {name.rpartition("/")[2]: reason[:20] for name, reason in reasons(result).items()} == {
        "0002": "its name leads outsi",
        "0003": "its name leads outsi",
        "0004": "its member 'mp4' is ",
        "0005": "its member 'mp4' is ",
        "0006": "its member 'mp4' is ",
    }


def cut(path: Path, size: int) -> Path:
    os.truncate(path, size)
    return path


@pytest.mark.parametrize(
    "damage", ["inside a member", "between members", "end mark", "header", "no tar", "absent", "no video"]
)
def test_a_bad_tar_is_one_sentence_and_what_can_be_read_of_it_is_built(tars, tmp_path, damage):
    bad = tars / "data-001.tar"
    data = bad.read_bytes()
    second = data.index(b"a/0002.mp4")
    if damage == "inside a member":
        cut(bad, second + 600)
    elif damage == "between members":
        cut(bad, second)
    elif damage == "end mark":
        cut(bad, data.rindex(b"CC BY") + 100)
    elif damage == "header":
        bad.write_bytes(data[:second] + b"x" * 300 + data[second + 300 :])
    elif damage == "no tar":
        bad.write_bytes(b"<html>not found</html>" * 100)
    elif damage == "absent":
        bad.unlink()
    else:
        write_tar(bad, [("0001.jpg", b"x"), ("0001.txt", b"x")])
    result = run([tars / "data-{000..001}.tar"], tmp_path / "d")
    (said,) = [(clip, reason) for clip, reason in reasons(result).items()]
    assert said[0] == "data-001.tar"
    assert "\n" not in said[1]
    assert str(bad) not in said[1].removeprefix(f"cannot open {bad}")
    assert result["clips"] == (3 if damage in ("inside a member", "end mark") else 2)
    if damage != "no video":
        write_tar(bad, [*sample("a/0001", "ann", 3), *sample("a/0002", "cyd", 4)])
        mended = run([tars / "data-{000..001}.tar"], tmp_path / "d")
        assert (mended["clips"], mended["refused"]) == (4, [])
    assert verify(str(tmp_path / "d"))["ok"]


def test_only_bad_tars_are_an_error_with_the_first_reason(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"no tar")
    with pytest.raises(InputError, match=r"^x\.tar: .*not a readable tar"):
        run([tmp_path / "x.tar"], tmp_path / "d")
    with pytest.raises(InputError, match="no tars there"):
        run([tmp_path / "nowhere"], tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_another_tar_under_a_built_name_is_not_taken_for_it(tars, tmp_path):
    run([tars], tmp_path / "d")
    write_tar(tars / "data-000.tar", [member for i in range(20) for member in sample(f"b/{i}", "eve", i)])
    result = run([tars], tmp_path / "d")
    assert reasons(result) == {
        "data-000.tar": "the tar differs from the one that was built under this name; give it another name"
    }
    assert "eve" not in open_dataset(tmp_path / "d").identities


def test_a_tar_that_was_written_again_is_read_again_and_only_what_is_new_is_built(tars, tmp_path):
    run([tars], tmp_path / "d")
    longer = [("a/0002.mp4", plan({"seed": 2}, {"seed": 3})), sample("a/0002", "bob")[1]]
    write_tar(tars / "data-000.tar", [*sample("a/0001", "ann", 1), *longer, *sample("a/0003", "eve", 5)])
    os.utime(tars / "data-000.tar", (1, 1))
    result = run([tars], tmp_path / "d")
    assert result["built_clips"] == 1
    assert "the video differs from the one that was built" in reasons(result)["data-000/a/0002.mp4"]
    assert "eve" in open_dataset(tmp_path / "d").identities


def test_rows_of_the_consent_file_go_before_the_json(tars, tmp_path):
    (tmp_path / "c.csv").write_text(HEADER + "data-000/a/0001,ada,owned,signed,studio\ndata-001/a/*,bea,owned,yes,\n")
    run([tars], tmp_path / "d", consent=tmp_path / "c.csv")
    dataset = open_dataset(tmp_path / "d")
    assert dataset.identities == ["ada", "bea", "bob"]
    assert dataset.licences["ada"] == ["owned"]
    assert dataset.licences["bob"] == ["CC BY 4.0"]


def test_a_row_that_names_no_tar_is_refused_where_it_would_fit(tars, tmp_path):
    (tmp_path / "c.csv").write_text(HEADER + "0001,ada,owned,signed,studio\n")
    result = run([tars], tmp_path / "d", consent=tmp_path / "c.csv")
    said = reasons(result)
    assert set(said) == {"data-000/a/0001", "data-001/a/0001"}
    assert "names '0001' without its tar" in said["data-000/a/0001"]
    assert "write 'data-000/a/0001'" in said["data-000/a/0001"]


def test_without_keys_each_sample_is_its_own_person_with_unknown_licence(tars, tmp_path):
    run([tars], tmp_path / "d", json_keys=[])
    dataset = open_dataset(tmp_path / "d")
    assert len(dataset.identities) == 4
    assert all(names == ["unknown"] for names in dataset.licences.values())
    changed = reasons(run([tars], tmp_path / "d"))
    assert len(changed) == 4
    assert all("the statements now say" in reason for reason in changed.values())


def test_texts_in_quotes_are_for_the_whole_corpus_and_denied_consent_is_kept_out(tmp_path):
    members = [*sample("1", "ann", 1, agreed=True), *sample("2", "bob", 2, agreed=False)]
    write_tar(tmp_path / "data.tar", members)
    keys = ["identity=speaker.id", 'licence="CC BY-NC 4.0"', "consent=agreed"]
    result = run([tmp_path / "data.tar"], tmp_path / "d", json_keys=keys)
    assert reasons(result) == {"data/2": "its JSON says 'agreed': false, so it is not used"}
    dataset = open_dataset(tmp_path / "d")
    assert (dataset.licences["ann"], dataset.consents["ann"]) == (["CC BY-NC 4.0"], ["yes"])


def test_different_people_keep_different_names():
    names = ["ann", "ann b", "ann_b", "安", "é", "x" * 40, "x" * 41]
    assert len({identity_name(name) for name in names}) == len(names)
    assert identity_name("ann_b") == "ann_b"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["person=x"], "no field 'person'"),
        (["identty=x"], "identity"),
        (["identity"], "expected FIELD=KEY"),
        (["identity=a", "identity=b"], "identity twice"),
    ],
)
def test_wrong_keys_are_one_sentence(keys, message):
    with pytest.raises(InputError, match=message):
        stated_keys(keys)


def test_keys_without_tars_are_refused(tmp_path):
    with pytest.raises(InputError, match="without tars"):
        build([str(tmp_path)], tmp_path / "d", json_keys={"identity": "x"})


def test_a_withdrawn_person_stays_out_and_the_tar_is_not_read_for_it(tars, tmp_path):
    run([tars], tmp_path / "d")
    forget(str(tmp_path / "d"), "bob")
    assert "bob" not in (tmp_path / "d/build.json").read_text()
    assert run([tars], tmp_path / "d")["built_clips"] == 0
    moved = write_tar(tars / "other.tar", [*sample("z", "robert", 2), *sample("y", "bob", 7), *sample("x", "dan", 8)])
    result = run([moved], tmp_path / "d")
    assert {name: "withdrawn" in reason for name, reason in reasons(result).items()} == {
        "other/y.mp4": True,
        "other/z.mp4": True,
    }


def test_sound_and_video_lie_on_disk_for_one_sample_at_a_time(tmp_path):
    members = [(f"{i}.{end}", bytes([i]) * 1000) for i in range(3) for end in ("mp4", "wav", "npy", "txt")]
    tar = write_tar(tmp_path / "data.tar", members)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for i, found in enumerate(read_samples(str(tar), scratch, lambda key: key != "1")):
        files = sorted(path.suffix for path in scratch.iterdir())
        assert files == ([] if i == 1 else [".mp4", ".wav"])
        if i != 1:
            assert found.video.read_bytes() == found.sound.read_bytes() == bytes([i]) * 1000
    assert list(scratch.iterdir()) == []


def test_names_are_those_that_webdataset_gives(tmp_path):
    import webdataset

    members = [
        ("./a/b.c/x.Left.MP4", b"1"),
        ("./a/b.c/x.json", b"{}"),
        ("y.mp4", b"2"),
        ("._y.mp4", b"3"),
        (".hidden", b""),
    ]
    tar = write_tar(tmp_path / "data.tar", members)
    theirs = [sample["__key__"].removeprefix("./") for sample in webdataset.WebDataset(str(tar), shardshuffle=False)]
    ours = [found.key for found in read_samples(str(tar), tmp_path, lambda key: False)]
    assert ours == theirs[: len(ours)]
    assert ours == ["a/b.c/x", "y"]


def test_gzipped_tars_folders_and_stars_are_found(tmp_path):
    write_tar(tmp_path / "t/a.tar.gz", sample("1", "ann", 1), "w:gz")
    write_tar(tmp_path / "t/b.tgz", sample("1", "bob", 2), "w:gz")
    write_tar(tmp_path / "t/c.tar", sample("1", "cyd", 3))
    (tmp_path / "t/notes.txt").write_text("x")
    assert [tar.name for tar in find_tars([str(tmp_path / "t")])] == ["a", "b", "c"]
    assert [tar.name for tar in find_tars([str(tmp_path / "t/*.tar")])] == ["c"]
    assert run([tmp_path / "t"], tmp_path / "d")["identities"] == 3
    cut(tmp_path / "t/a.tar.gz", 100)
    found = list(read_samples(str(tmp_path / "t/a.tar.gz"), tmp_path, lambda key: False))
    assert found[-1].key == ""


def test_a_secret_in_a_url_reaches_no_report():
    (tar,) = find_tars(["https://127.0.0.1:9/x/data-000.tar?X-Amz-Signature=abc"])
    assert tar.name == "data-000"


@pytest.fixture(scope="module")
def server():
    with s3_server() as server:
        yield server


def test_tars_in_a_bucket_and_behind_a_web_server_are_streamed(server, tars, tmp_path):
    server.heal()
    for path in tars.iterdir():
        storage.publish(path, f"s3://{BUCKET}/tars/{path.name}")
    run([f"s3://{BUCKET}/tars/data-{{000..001}}.tar"], tmp_path / "s3")
    run([tars], tmp_path / "disk")
    one, other = open_dataset(tmp_path / "s3"), open_dataset(tmp_path / "disk")
    assert [row.key for row in one.samples] == [row.key for row in other.samples]
    assert one.fingerprint == other.fingerprint
    assert run([f"s3://{BUCKET}/tars"], tmp_path / "s3")["built_clips"] == 0
    fs, path = filesystem(f"s3://{BUCKET}/tars/data-000.tar")
    fs.chmod(path, "public-read")
    web = f"{os.environ['AWS_ENDPOINT_URL']}/{BUCKET}/tars/data-000.tar"
    assert run([web], tmp_path / "web")["clips"] == 2


def test_a_web_server_without_ranges_is_refused_in_one_sentence(tars, tmp_path):
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tars)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        with pytest.raises(InputError, match="no ranged requests"):
            run([f"{url}/data-000.tar"], tmp_path / "d")
        with pytest.raises(InputError, match="no such file"):
            run([f"{url}/data-009.tar"], tmp_path / "d")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_statements_have_one_digest_for_one_meaning():
    assert Statements(None, {"identity": "a"}).digest == Statements(None, {"identity": "a"}).digest
    assert Statements(None, {"identity": "a"}).digest != Statements(None, {"identity": "b"}).digest


def test_the_five_lines_of_the_guide_read_a_dataset_without_us(tmp_path):
    guide = (Path(__file__).parents[2] / "docs/webdataset-tars.md").read_text()
    lines = guide.split("```python\n")[1].split("```")[0]
    assert len(lines.splitlines()) == 5
    make_dataset(tmp_path / "corpus", {"ann": 2, "bob": 1}, per_shard=2, length=5)
    ours = "import sys; assert not {'shards', 'headstart', 'cluster', 'configs'} & set(sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", f"{lines}\n{ours}"]
    read = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    keys = [line.split()[0] for line in read.stdout.splitlines()]
    assert keys == [row.key for row in open_dataset(tmp_path / "corpus").samples]
    assert "(5, 160)" in read.stdout


def test_a_sound_beside_its_video_is_heard_as_if_it_were_inside(clips, tmp_path):
    clip = clips / "grid_lbax4n.mp4"
    sound = read_audio(clip)
    soundfile.write(tmp_path / "x.wav", sound, 16_000, subtype="FLOAT")
    late = np.concatenate([sound, np.zeros(24_000, np.float32)])
    soundfile.write(tmp_path / "late.wav", late, 16_000, subtype="FLOAT")
    with av.open(str(clip)) as source, av.open(str(tmp_path / "x.mp4"), "w") as sink:
        stream = sink.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                sink.mux(packet)
    video = (tmp_path / "x.mp4").read_bytes()
    free = b"\0\0\0\x08free"  # an empty box: other bytes, the same video
    members = [("a.wav", (tmp_path / "x.wav").read_bytes()), ("a.mp4", video)]
    members += [
        ("c.mp4", video + free),
        ("c.wav", (tmp_path / "late.wav").read_bytes()),
        ("d.mp4", video + 2 * free),
        ("d.wav", b"no sound"),
    ]
    tar = write_tar(tmp_path / "data.tar", members)
    result = build([], tmp_path / "d", tars=[str(tar)], workers=0, size=128, in_step=False)
    dataset = open_dataset(tmp_path / "d")
    heard = [dataset.read(row.key) for row in dataset.samples]
    assert all(sample.meta["has_audio"] for sample in heard)
    first = int(heard[0].meta["first_frame"]) * 640
    got = np.concatenate([sample.audio for sample in heard])
    np.testing.assert_allclose(got, sound[first : first + len(got)], atol=2e-4)
    said = reasons(result)
    assert "its sound lasts" in said["data/c.mp4"]
    assert said["data/d.mp4"].startswith("its sound is not a video or sound file")
