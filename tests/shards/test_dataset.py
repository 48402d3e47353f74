"""Datasets on disk: plain WebDataset inside, checked when written, unbreakable when read, cheap to open."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from configs import InputError
from shards import BrokenSample, DatasetWriter, open_dataset, sample_key
from shards.check.proofs import check_sample
from shards.format import codecs as codec
from shards.format.index import index_of
from shards.format.schema import clean_name, split_key
from tests.support.samples import RIG, SIZE, make_dataset, parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("dataset") / "data"
    make_dataset(path)
    return path


def test_plain_webdataset_reads_the_shards_without_us(folder):
    import webdataset

    urls = sorted(map(str, (folder / "shards").glob("*.tar")))
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8"))
    assert sorted(s["__key__"] for s in samples) == [row.key for row in open_dataset(folder).samples]
    first = samples[0]
    assert first["f000.jpg"].shape == (SIZE, SIZE, 3)
    assert first["track.npz"]["landmarks"].shape == (6, 478, 3)
    assert first["meta.json"]["schema"] == 1
    assert first["audio.logmel.npy"].dtype == np.float16


def test_what_was_written_is_what_is_read(folder):
    sample = open_dataset(folder).read("bob/bob_clip1-00001")
    given = parts(1004)
    assert sample.length == 6
    assert np.abs(sample.frames().astype(int) - given["frames"]).mean() < 2
    assert np.array_equal(sample.matte(5), given["matte"][5])
    for name, value in given["track"].items():
        assert np.array_equal(sample.track[name], value), name
    np.testing.assert_allclose(sample.audio, given["audio"], atol=2 / 32768)
    np.testing.assert_allclose(sample.features("logmel"), given["features"]["logmel"], rtol=2e-3, atol=1e-3)
    assert sample.meta["identity"] == "bob"
    assert sample.meta["rig"] == RIG
    assert check_sample(sample, {"logmel": 160}) == {"identity": 8, "expression": 32}


def test_frames_decode_lazily_and_smaller_when_asked(folder):
    sample = open_dataset(folder).read(0)
    assert sample.frame(2, min_side=16).shape == (16, 16, 3)
    with pytest.raises(IndexError, match="frames 0 to 5"):
        sample.frame(6)


def test_info_counts_what_is_there(folder):
    info = open_dataset(folder).info
    wanted = {"identities": 3, "clips": 8, "segments": 21, "frames": 126, "schema": 1, "licences": {"test": 3}}
    assert {name: info[name] for name in wanted} == wanted
    assert info["bytes"] == sum(p.stat().st_size for p in (folder / "shards").glob("*.tar"))
    assert info["hours"] == pytest.approx(126 / 25 / 3600, abs=1e-6)


def test_the_same_samples_give_the_same_files(tmp_path, folder):
    make_dataset(tmp_path / "again")
    for path in sorted(folder.rglob("*.*")):
        other = tmp_path / "again" / path.relative_to(folder)
        assert other.read_bytes() == path.read_bytes(), path.name
    assert open_dataset(tmp_path / "again").fingerprint == open_dataset(folder).fingerprint


def test_adding_later_goes_on_and_refuses_a_key_that_exists(tmp_path):
    make_dataset(tmp_path / "d", {"ann": 3})
    with DatasetWriter(tmp_path / "d", rig=RIG) as writer:
        assert writer.has("ann/ann_clip0-00001")
        with pytest.raises(InputError, match="already"):
            writer.add("ann/ann_clip0-00001", {}, **parts(0))
        writer.add(sample_key("zoe", "z", 0), {}, **parts(0))
    dataset = open_dataset(tmp_path / "d")
    assert dataset.identities == ["ann", "zoe"]
    assert dataset.licences == {"ann": ["test"], "zoe": ["unknown"]}
    assert len(dataset) == 4


def test_an_aborted_writer_leaves_the_dataset_of_the_last_commit(tmp_path):
    make_dataset(tmp_path / "d", {"ann": 3})
    before = {p.name: p.read_bytes() for p in (tmp_path / "d").rglob("*.*")}
    with pytest.raises(BrokenSample), DatasetWriter(tmp_path / "d", rig=RIG) as writer:  # noqa: PT012
        writer.add(sample_key("zoe", "z", 0), {}, **parts(0))
        writer.add(sample_key("zoe", "z", 1), {}, **{**parts(1), "audio": np.zeros(3, np.float32)})
    assert {p.name: p.read_bytes() for p in (tmp_path / "d").rglob("*.*")} == before


def test_another_rig_or_other_sizes_are_refused(tmp_path):
    make_dataset(tmp_path / "d", {"ann": 3})
    with pytest.raises(InputError, match=r"rig test-rig/1 .* now it is other"):
        DatasetWriter(tmp_path / "d", rig={"name": "other", "sha256": "1" * 64})
    wrong = parts(0)
    wrong["track"]["identity"] = np.zeros(9, np.float32)
    with DatasetWriter(tmp_path / "d") as writer, pytest.raises(InputError, match="'identity': 9"):
        writer.add(sample_key("zoe", "z", 0), {}, **wrong)


def change(**changes):
    def apply(value):
        for name, function in changes.items():
            if name in value:
                value[name] = function(value[name])
            else:
                value["track"][name] = function(value["track"][name])
        return value

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (change(audio=lambda a: a[:-1]), r"audio has shape \(3839,\), expected \(3840,\)"),
        (change(audio=lambda a: a * np.nan), "not finite"),
        (change(matte=lambda m: m[1:]), r"matte has shape"),
        (change(frames=lambda f: f[:, :16]), "frames have shape"),
        (change(expression=lambda e: e[:-1]), r"'expression' has shape \(5, 32\), expected \(6, 32\)"),
        (change(rotation=lambda r: r.astype(np.float64)), "float64, expected float32"),
        (change(gaze=lambda g: g + np.inf), "not finite"),
        (change(features=lambda f: {"logmel": f["logmel"][1:]}), "one row per frame"),
    ],
)
def test_lengths_that_disagree_are_refused_when_they_are_written(tmp_path, spoil, message):
    with DatasetWriter(tmp_path / "d") as writer, pytest.raises(BrokenSample, match=message):
        writer.add(sample_key("ann", "a", 0), {}, **spoil(parts(0)))


def test_names_become_safe_and_foreign_keys_are_refused():
    assert clean_name("../../etc/pass wd.mp4") == "etc_pass_wd_mp4"
    assert clean_name("Ünï") == "n"
    assert clean_name("???") == "unnamed"
    for key in ("../x/y-00001", "a/b", "a/../b-00001", "/a/b-00001", "a/b-1", "a/b.c-00001"):
        with pytest.raises(InputError, match="expected IDENTITY/CLIP"):
            split_key(key)


# ---------------------------------------------------------------------------------------------------- hostile bytes


def tar_with(*names: str, link: str | None = None) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            if link is not None:
                info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info, io.BytesIO())
    stream.seek(0)
    return stream


@pytest.mark.parametrize(
    "tar",
    [
        tar_with("../../root/.ssh/a-00000.meta.json"),
        tar_with("/etc/a-00000.meta.json"),
        tar_with("a/b-00000.meta.json", link="/etc/passwd"),
        tar_with("a/b-00000.evil.pkl"),
        tar_with("a/b-00000.meta.json", "a/c-00000.meta.json", "a/b-00000.track.npz"),
    ],
)
def test_a_tar_with_foreign_members_is_refused(tar):
    with pytest.raises(InputError):
        index_of(tar, "x.tar")


def test_a_header_is_recognised_as_tarfile_does():
    from shards.format.index import header_matches

    info = tarfile.TarInfo("a/b-00000.f000.jpg")
    info.size = 70_001
    good = info.tobuf(tarfile.USTAR_FORMAT)
    assert header_matches(good, b"a/b-00000.f000.jpg", 70_001)
    assert not header_matches(good, b"a/b-00000.f001.jpg", 70_001)
    assert not header_matches(good, b"a/b-00000.f000.jpg", 70_002)
    assert not header_matches(good[:-1], b"a/b-00000.f000.jpg", 70_001)
    for at, byte in ((124, b"9"), (156, b"2"), (350, b"x")):
        assert not header_matches(good[:at] + byte + good[at + 1 :], b"a/b-00000.f000.jpg", 70_001)


def test_a_tar_header_that_claims_gigabytes_is_refused_before_reading(tmp_path):
    info = tarfile.TarInfo("a/b-00000.f000.jpg")
    info.size = 10 * 2**30
    with pytest.raises(InputError, match="claims 10737418240 bytes"):
        index_of(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT)), "x.tar")


def test_a_jpeg_header_that_claims_gigapixels_is_refused_before_decoding():
    data = bytearray(codec.encode_jpeg(np.zeros((16, 16, 3), np.uint8)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)  # 10 GB of pixels
    with pytest.raises(codec.BadMember, match="60000x60000"):
        codec.decode_jpeg(bytes(data), (16, 16))


def test_a_png_header_that_claims_gigapixels_is_refused_before_decoding():
    data = bytearray(codec.encode_png(np.zeros((16, 16), np.uint8)))
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(codec.BadMember):
        codec.decode_png(bytes(data), (16, 16))


def test_an_array_header_that_claims_terabytes_is_refused_before_allocating():
    data = codec.encode_npy(np.zeros(4, np.float32)).replace(b"(4,), }           ", b"(400000000000,), }")
    assert b"400000000000" in data
    with pytest.raises(codec.BadMember, match="header says"):
        codec.decode_npy(data)


def test_pickled_objects_are_never_loaded():
    stream = io.BytesIO()
    np.save(stream, np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(codec.BadMember, match="objects"):
        codec.decode_npy(stream.getvalue())


def test_a_zip_bomb_is_refused_before_it_is_unpacked():
    data = codec.encode_npz({"a": np.zeros(10**6, np.float64)}, compress=True)
    assert len(data) < 10_000
    with pytest.raises(codec.BadMember, match="unpacks to"):
        codec.decode_npz(data, limit=10**6)


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_come_back_as_they_were_written_and_as_zipfile_reads_them(compress):
    values = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.zeros((0, 2)), "c": np.asarray(7, np.int64)}
    data = codec.encode_npz(values, compress=compress)
    with np.load(io.BytesIO(data)) as archive:
        expected = dict(archive)
    found = codec.decode_npz(data)
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert np.array_equal(found[name], value)


def test_a_changed_byte_of_an_array_is_refused():
    data = bytearray(codec.encode_npz({"a": np.zeros(100, np.float32)}))
    data[len(data) // 2] ^= 1
    with pytest.raises(codec.BadMember, match="CRC"):
        codec.decode_npz(bytes(data))


def test_an_archive_whose_entries_all_share_the_same_bytes_is_not_unpacked_beyond_its_limit():
    one = codec.encode_npz({"a": np.zeros(10**6, np.uint8)})
    directory = one[one.index(b"PK\1\2") : -22]
    entries = 500
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, entries, entries, entries * len(directory), len(one) - 22 - 51, 0)
    data = one[: one.index(b"PK\1\2")] + directory * entries + end
    with pytest.raises(codec.BadMember):
        codec.decode_npz(data, limit=10**8)


def test_mattes_are_the_same_whoever_wrote_the_png():
    from PIL import Image

    rng = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 3), (64, 48)):
        matte = rng.integers(0, 256, (height, width), np.uint8)
        stream = io.BytesIO()
        Image.fromarray(matte).save(stream, "PNG")
        for data in (codec.encode_png(matte), stream.getvalue()):
            assert np.array_equal(codec.decode_png(data, (width, height)), matte)
            out = np.empty_like(matte)
            assert codec.decode_png(data, (width, height), out) is out
            assert np.array_equal(out, matte)


def test_a_png_that_is_cut_or_claims_more_rows_than_it_holds_is_refused():
    good = codec.encode_png(np.zeros((16, 16), np.uint8))
    tall = bytearray(good)
    tall[16:24] = struct.pack(">II", 16, 4000)
    tall[29:33] = struct.pack(">I", zlib.crc32(tall[12:29]))
    for data, size in ((bytes(tall), (16, 4000)), (good[:50], (16, 16))):
        with pytest.raises(codec.BadMember):
            codec.decode_png(data, size)


@pytest.mark.parametrize("decode", [codec.decode_npy, codec.decode_npz])
def test_noise_is_refused_and_never_an_error_of_ours(decode):
    rng = np.random.default_rng(0)
    good = codec.encode_npy(np.zeros(9)) if decode is codec.decode_npy else codec.encode_npz({"a": np.zeros(9)})
    for _ in range(300):
        data = bytearray(good)
        for at in rng.integers(len(data), size=rng.integers(1, 6)):
            data[at] = rng.integers(256)
        with contextlib.suppress(codec.BadMember):
            decode(bytes(data))


# ---------------------------------------------------------------------------------------------------- dataset.json


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda v: v.update(schema=2), "schema 2, this version reads 1"),
        (lambda v: v.update(format="x"), "not a headstart dataset"),
        (lambda v: v["shards"][0].update(name="../../x"), "damaged entry"),
        (lambda v: v["shards"][0].update(sha256="00"), "damaged entry"),
        (lambda v: v["shards"][0].update(samples=99), "do not add up"),
        (lambda v: v["shards"][0]["people"][0].__setitem__(0, 77), "damaged entry"),
        (lambda v: v.pop("shards"), "damaged entry"),
    ],
)
def test_a_damaged_dataset_json_is_refused_in_one_sentence(tmp_path, spoil, message):
    make_dataset(tmp_path / "d", {"ann": 3})
    value = json.loads((tmp_path / "d" / "dataset.json").read_text())
    spoil(value)
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path / "d")


def test_a_folder_without_a_dataset_says_so(tmp_path):
    with pytest.raises(InputError, match="no dataset here"):
        open_dataset(tmp_path)


def test_an_unwritable_output_is_found_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        DatasetWriter(tmp_path / "file" / "d")
