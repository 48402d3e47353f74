"""Lips and motion as members of their own: added later they are those of a build, and priors read little else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from configs import load_config
from heads.measures import lips
from pretrain.audio_expression.config import AudioExpressionConfig
from pretrain.audio_expression.view import WindowView
from pretrain.sync_expert.config import SyncExpertConfig
from pretrain.sync_expert.view import CropCache, LipRunView, sample_lips, stored_lips
from shards.build.build import build
from shards.check.verify import verify
from shards.format import codecs
from shards.format.catalogue import read_catalogue, write_catalogue
from shards.format.groups import is_group
from shards.format.small import EXTRAS, LIPS, MARGIN, MOTION, decode_crops, decode_lips, encode_lips, small_members
from shards.read.dataset import Dataset, open_dataset
from shards.read.store import Store
from shards.tar.rewrite import first_keys, remove_unlisted, rewrite_shard
from tests.support.fake_tracker import TRACKER
from tests.support.samples import make_dataset
from tests.support.talkers import talkers

SYNC = load_config(SyncExpertConfig, {"run": 12, "cache_mb": 0})
WINDOW = load_config(AudioExpressionConfig, {"window": 20, "overlap": 4, "features": "logmel"})


def rewritten(url: str, edit) -> None:
    """Every shard of a dataset after ``edit(key, members)``."""
    catalogue, dataset = read_catalogue(url), open_dataset(url)
    starts, names = first_keys([row.key for row in dataset.samples]), [shard["name"] for shard in catalogue.shards]
    catalogue.add([rewrite_shard(url, name, edit, starts, index=dataset.index(name)) for name in names])
    catalogue.remove(names)
    write_catalogue(url, catalogue)
    remove_unlisted(url, catalogue, names)


def without_extras(url: str) -> str:
    """The dataset as an earlier version wrote it."""
    rewritten(url, lambda key, members: {k: v for k, v in members.items() if k not in EXTRAS and not is_group(k)})
    assert not set(EXTRAS) & set(open_dataset(url).read(0).members)
    return url


@pytest.fixture
def old(tmp_path) -> str:
    return without_extras(make_dataset(tmp_path / "old"))


class Counted:
    """Requests and bytes that a dataset's store is asked for."""

    def __init__(self, monkeypatch) -> None:
        self.requests = self.bytes = 0
        real = Store._read

        def read(store, shard, start, stop):
            self.requests, self.bytes = self.requests + 1, self.bytes + stop - start
            return real(store, shard, start, stop)

        monkeypatch.setattr(Store, "_read", read)


def test_a_dataset_of_an_earlier_version_gets_the_bytes_of_a_build(old, tmp_path):
    make_dataset(tmp_path / "new")
    result = build([], old, tracker=TRACKER, workers=0, extras=True)
    assert result["extended_shards"] == len(read_catalogue(old).shards) > 1
    late, first = open_dataset(old), open_dataset(tmp_path / "new")
    for row in first.samples:
        one, other = late.read(row.key), first.read(row.key)
        assert one.members == other.members
        assert all(one.raw(name) == other.raw(name) for name in sorted(other.members))
    tars = [sorted(Path(url, "shards").glob("*.tar")) for url in (old, tmp_path / "new")]
    assert [path.read_bytes() for path in tars[0]] == [path.read_bytes() for path in tars[1]]
    assert verify(old)["ok"]
    assert build([], old, tracker=TRACKER, workers=0, extras=True)["extended_shards"] == 0


def test_shards_of_an_earlier_version_stay_readable_and_stay_as_they_are(old):
    before = [shard["sha256"] for shard in read_catalogue(old).shards]
    sample = open_dataset(old).read(0)
    assert sample.frames().shape[0] == sample.length
    assert verify(old)["ok"]
    build([], old, tracker=TRACKER, workers=0)
    assert [shard["sha256"] for shard in read_catalogue(old).shards] == before


def test_no_member_has_a_header_beside_its_own(tmp_path):
    url = make_dataset(tmp_path / "new")
    for path in Path(url, "shards").glob("*.tar"):
        blocks = path.read_bytes()
        kinds = set()
        at = 0
        while blocks[at : at + 1] != b"\0":
            kinds.add(blocks[at + 156 : at + 157])
            at += 512 + -(-int(blocks[at + 124 : at + 135], 8) // 512) * 512
        assert kinds == {b"0"}, "PAX headers ('x') would be 1,024 bytes more for each member"


def test_sync_expert_reads_an_eighth_of_the_bytes_in_at_most_two_requests(monkeypatch, tmp_path):
    url = Path(talkers())
    dataset = open_dataset(url)
    shutil.copytree(url, tmp_path / "old")
    old = open_dataset(without_extras(str(tmp_path / "old")))
    counts, batches = [], []
    for data in (dataset, old):
        counted = Counted(monkeypatch)
        view = LipRunView(SYNC, CropCache(1 << 28))
        keys = [row.key for row in data.samples]
        batches.append([view(data.read(key), np.random.default_rng(i)) for i, key in enumerate(keys)])
        counts.append((counted.requests / len(keys), counted.bytes / len(keys)))
        monkeypatch.undo()
    assert counts[0][0] <= 2
    assert counts[0][1] <= counts[1][1] / 8, counts
    for ours, theirs in zip(*batches):
        assert all(ours[name].shape == theirs[name].shape for name in theirs)
        assert np.array_equal(ours["features"], theirs["features"])
        np.testing.assert_allclose(ours["shape"], theirs["shape"], atol=1e-6)
        # Cut at another size, compressed once more: two levels in the mean.
        assert np.abs(ours["lips"].astype(int) - theirs["lips"]).mean() < 4


def test_stored_crops_show_what_would_be_cut_from_the_frames():
    sample = open_dataset(talkers()).read(0)
    ours, cut = stored_lips(sample, SYNC), sample_lips(sample, SYNC, MARGIN)
    assert ours.shape == cut.shape == (sample.length, round(36 * MARGIN), round(48 * MARGIN), 3)
    assert np.abs(ours.astype(int) - cut).mean() < 4


@pytest.mark.parametrize("shift", [0, -150, 150])
def test_crops_are_those_of_whole_pictures_at_their_edges_too(shift):
    height, breadth, size = 66, 88, 256
    place = np.linspace(0, 9, size)
    picture = np.stack(
        [np.outer(np.sin(place), np.cos(place)), np.outer(place, place) / 81, np.outer(place, 9 - place) / 81], -1
    )
    data = codecs.encode_jpeg((picture * 127 + 128).clip(0, 255).astype(np.uint8), 90)
    landmarks = np.random.default_rng(0).normal(128 + shift, 20, (3, 478, 3)).astype(np.float32)
    landmarks[:, lips.EYES] = [[[100 + shift, 110, 0], [160 + shift, 114, 4]]]
    lips_of = decode_lips(encode_lips([data] * 3, landmarks, (size, size), np.zeros(1920, np.float32)), 3)
    stored = decode_crops(lips_of["jpeg"].tobytes(), 3)
    frames = torch.from_numpy(codecs.decode_jpeg(data, (size, size))).float().expand(3, -1, -1, -1)
    grow = torch.tensor([[0.0, 0.0, float(np.log(MARGIN)), 0.0]] * 3)
    whole = lips.crop_lips(frames, torch.from_numpy(landmarks), height, breadth, grow).numpy()
    assert np.abs(stored - whole).mean() < 1.5  # JPEG


def test_audio_expression_reads_its_window_in_one_request_and_no_picture(monkeypatch):
    dataset = open_dataset(talkers())
    sample = dataset.read(0)
    sample.sibling = lambda rng: sample  # of the segment itself: neighbours are read once and remembered
    counted = Counted(monkeypatch)
    entry = WindowView(WINDOW, {sample.identity: 0})(sample, np.random.default_rng(0))
    monkeypatch.undo()
    small = sum(len(dataset.read(0).raw(name)) for name in ("audio.logmel.npy", MOTION))
    assert counted.requests == 1
    assert entry["weight"] == 1
    assert counted.bytes < small + 4 * 512, "headers and padding beside the two members"


@pytest.mark.parametrize("name", EXTRAS)
def test_small_members_that_do_not_belong_to_their_sample_are_found(name, tmp_path):
    url = make_dataset(tmp_path / "new")

    def spoil(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        values = codecs.decode_npz(members[name])
        values["shape" if name == LIPS else "eyelids"] = values["shape" if name == LIPS else "eyelids"][1:]
        return {**members, name: codecs.encode_npz(values)}

    rewritten(url, spoil)
    result = verify(url)
    assert not result["ok"]
    assert {item["member"] for item in result["broken"]} == {name}


def test_small_members_depend_on_the_sample_alone():
    sample = open_dataset(talkers()).read(1)
    members = {name: sample.raw(name) for name in sorted(sample.members)}
    again = small_members(members, sample.length, sample.size)
    assert {name: members[name] for name in members if name in EXTRAS or is_group(name)} == again


def test_a_view_of_a_mixed_dataset_gives_equal_shapes(old):
    """Some shards extended, some not: what a stopped command leaves."""
    both = [Dataset(url, read_catalogue(url)).read(0) for url in (old, talkers())]
    shapes = [LipRunView(SYNC)(sample, np.random.default_rng(0))["lips"].shape for sample in both]
    assert shapes[0] == shapes[1]
