"""Groups of pictures: every frame in one, wide ones in front, read with one request, and old orders still readable."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from heads.measures.face import inner_lip_distance, outer_eye_distance
from shards.check.verify import verify
from shards.format.groups import MIXED, TOGETHER, WIDE, arranged, group_name, groups_in, is_group
from shards.format.schema import BrokenSample
from shards.read.dataset import open_dataset
from shards.read.view import PairView
from tests.shards.test_small_members import Counted, rewritten, without_extras
from tests.support.samples import make_dataset
from tests.support.talkers import talkers


def track(length: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    angles = rng.normal(0, 0.3, length)
    rotation = np.stack([[[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]] for a in angles])
    return {
        "landmarks": rng.normal(64, 20, (length, 478, 3)).astype(np.float32),
        "rotation": rotation.astype(np.float32),
    }


@pytest.mark.parametrize("length", [1, 5, 6, 11, 12, 23, 24, 37, 50])
def test_every_frame_is_in_one_group(length):
    groups = arranged(track(length))
    assert sorted(i for group in groups for i in group) == list(range(length))
    assert all(min(TOGETHER, length) <= len(group) < 2 * TOGETHER for group in groups)


def test_the_first_groups_are_the_open_and_the_turned_frames_and_the_others_span_the_segment():
    values = track(50)
    groups = arranged(values)
    assert len(groups) >= MIXED
    points = values["landmarks"][..., :2]
    opening = inner_lip_distance(points) / outer_eye_distance(points)
    assert set(groups[0]) == set(np.argsort(-opening)[: len(groups[0])].tolist())
    cosine = np.einsum("tij,ij->t", values["rotation"], values["rotation"].mean(0))
    cosine[groups[0]] = np.inf
    assert set(groups[1]) == set(np.argsort(cosine)[: len(groups[1])].tolist())
    for group in groups[WIDE:]:
        assert max(group) - min(group) > 50 / 2
        assert min(b - a for a, b in pairwise(sorted(group))) >= 3, "no two that look the same"


def test_a_rewritten_shard_keeps_its_groups_and_a_dataset_without_them_is_read_as_before(tmp_path):
    url = make_dataset(tmp_path / "new")
    before = open_dataset(url).read(0).groups
    assert before
    rewritten(url, lambda key, members: dict(sorted(members.items())))
    assert open_dataset(url).read(0).groups == before
    assert verify(url)["ok"]
    old = open_dataset(without_extras(url)).read(0)
    assert old.groups == []
    entries = [
        PairView(size=16, targets=2, grouped=grouped)(old, np.random.default_rng(3)) for grouped in (False, True)
    ]
    assert all(np.array_equal(entries[0][name], entries[1][name]) for name in entries[0])


def test_a_sample_takes_one_request_for_each_segment_it_shows(monkeypatch):
    dataset = open_dataset(talkers())
    for across, most in ((0.0, 1), (1.0, 2)):
        for i in range(6):
            sample = dataset.read(i % len(dataset))
            dataset.index(0)
            counted = Counted(monkeypatch)
            PairView(size=64, targets=5, across=across, wide=0.5, grouped=True)(sample, np.random.default_rng(i))
            monkeypatch.undo()
            assert 1 <= counted.requests <= most


def test_pictures_of_a_group_have_the_values_of_their_frames():
    sample = open_dataset(talkers()).read(0)
    entry = PairView(size=64, targets=4, across=0.0, grouped=True)(sample, np.random.default_rng(1))
    whole = open_dataset(talkers()).read(0)
    times = [int(np.flatnonzero((whole.track["rotation"] == r).all((1, 2)))[0]) for r in entry["target_rotation"]]
    assert len(set(times)) == 4
    assert any(set(times) <= set(group) for group in whole.groups)
    for i, expression, image in zip(times, entry["target_expression"], entry["target_image"]):
        assert np.array_equal(expression, whole.track["expression"][i])
        small = whole.frame(i, 64)
        assert np.abs(image.mean((0, 1)) * 255 - small.mean((0, 1))).max() < 2


def test_every_frame_is_a_target_and_wide_ones_come_as_often_as_asked():
    sample = open_dataset(talkers()).read(0)
    groups, rng = sample.groups, np.random.default_rng(0)
    assert len(groups) >= MIXED
    drawn, sources = zip(*(PairView(wide=0.5, grouped=True)._groups(sample, rng) for _ in range(400)))
    assert set(drawn) == set(range(len(groups)))
    assert 0.4 < np.mean(np.array(drawn) < WIDE) < 0.6
    assert set(sources) == set(range(WIDE, len(groups)))
    assert {PairView(wide=0.0)._groups(sample, rng)[0] for _ in range(100)} == set(range(WIDE, len(groups)))


def test_in_an_epoch_a_segment_shows_one_group_to_every_sample_and_over_epochs_all():
    dataset, view, rng = open_dataset(talkers()), PairView(wide=0.5, grouped=True), np.random.default_rng(0)
    epochs = [dataset.sample(0, 0, epoch=(7, epoch)) for epoch in range(60)]
    drawn = [{view._groups(sample, rng) for _ in range(5)} for sample in epochs]
    assert all(len(same) == 1 for same in drawn)
    assert {next(iter(same))[0] for same in drawn} == set(range(len(epochs[0].groups)))
    siblings = {sample.sibling(rng).epoch for sample in epochs}
    assert siblings == {(7, epoch) for epoch in range(60)}


def test_a_group_that_is_not_the_tracks_is_found(tmp_path):
    url = make_dataset(tmp_path / "new")

    def swap(key: str, members: dict[str, bytes]) -> dict[str, bytes]:
        return {**members, group_name(0): b"no group"}

    rewritten(url, swap)
    result = verify(url)
    assert {item["member"] for item in result["broken"]} == {group_name(0)}
    sample = open_dataset(url).read(0)
    with pytest.raises(BrokenSample, match=r"track\.0\.npz"):
        sample.group(0)


def test_names_in_another_order_give_no_groups():
    names = sorted(open_dataset(talkers()).read(0).members)
    assert any(map(is_group, names))
    assert not any(groups_in(names))
