"""The original SyncNet from a user's file: the authors' sound features, crops, layers and offset scan."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from configs import InputError
from pretrain.sync_expert.mfcc import COEFFICIENTS, mel_filters, mfcc
from pretrain.sync_expert.syncnet import FaceWindows, SyncNet, confidence, crop_face, face_boxes, offset_distances

# Rows 0, 3 and 13 of python_speech_features 0.6 for the sound of `sweep`; row 13 is filled up with zeros.
REFERENCE = """
    21.076198 2.439585 7.247589 46.559954 -16.807167 -37.500698 11.305178 -33.363096 -46.42476 9.137009 -16.395282
    -26.043707 20.493161
    21.045147 3.295545 -4.188121 15.706218 -37.547953 -50.933554 4.503556 -24.381265 -22.93972 36.529491 10.857814
    -5.762481 27.647166
    21.618786 3.620358 -28.247655 -6.955112 -22.126203 6.287099 54.948123 -9.80573 -42.325329 6.072935 -2.982826
    -2.236512 28.77021
"""


def sweep() -> np.ndarray:
    """A rising tone with a steady one and a gap, (2333,) in [-1, 1]."""
    t = np.arange(2333) / 16000
    sound = 0.4 * np.sin(2 * np.pi * (200 * t + 3000 * t * t)) + 0.1 * np.cos(2 * np.pi * 2900 * t)
    sound[800:1400] = 0
    return sound


@pytest.fixture(scope="module")
def network() -> SyncNet:
    """Random weights of the right layout, with statistics as after training."""
    torch.manual_seed(0)
    network = SyncNet()
    for name, value in network.state_dict().items():
        if name.endswith("running_mean"):
            value.normal_(0, 0.1)
    return network


class Bright(SyncNet):
    """Sees and hears by looking at means, so that a stream and a scan can be tested without the network's cost."""

    def face_embedding(self, faces):
        return torch.nn.functional.pad(faces.mean((2, 3, 4)), (0, 1019))

    def sound_embedding(self, rows):
        return torch.nn.functional.pad(rows[:, ::4, 0], (0, 1019))


def test_sound_features_are_those_of_python_speech_features():
    found = mfcc(sweep())
    assert found.shape == (14, COEFFICIENTS)
    np.testing.assert_allclose(found[[0, 3, 13]], np.array(REFERENCE.split(), float).reshape(3, 13), atol=1e-6)


def test_silence_has_the_least_energy_and_no_shape():
    found = mfcc(np.zeros(800))
    np.testing.assert_allclose(found[:, 0], np.log(np.finfo(float).eps))
    np.testing.assert_allclose(found[:, 1:], 0, atol=1e-9)


def test_mel_filters_rise_and_fall_between_whole_bins():
    filters = mel_filters()
    assert filters.shape == (26, 257)
    assert filters[0].nonzero()[0].tolist() == [1, 2, 3]
    assert filters[0, 1:4].tolist() == [0.5, 1.0, 0.5]  # corners on bins 0, 2 and 4, of 31.25 Hz each
    assert filters.max(1).tolist() == [1.0] * 26


@pytest.mark.parametrize("length", [1, 400, 401, 560, 561, 640 * 7])
def test_a_sound_has_as_many_rows_as_it_has_windows_begun(length):
    assert len(mfcc(np.ones(length) * 0.1)) == 1 + max(0, -(-(length - 400) // 160))


@pytest.mark.parametrize("kind", ["legacy", "zip", "safetensors"])
def test_weights_come_back_from_each_format_of_a_file(network, tmp_path, kind):
    weights = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    path = tmp_path / ("net.safetensors" if kind == "safetensors" else "syncnet_v2.model")
    if kind == "safetensors":
        from safetensors.torch import save_file

        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "zip")
    rows = torch.randn(2, 20, 13, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(SyncNet.open(path).sound_embedding(rows), network.sound_embedding(rows))


class Payload:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    path = tmp_path / "syncnet_v2.model"
    torch.save({"netcnnaud.0.weight": Payload()}, path)
    with pytest.raises(InputError, match="would run code when loaded"):
        SyncNet.open(path)
    (tmp_path / "bare.model").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(InputError, match=r"bare\.model"):
        SyncNet.open(tmp_path / "bare.model")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"netcnnlip.0.weight": None}, r"netcnnlip\.0\.weight: got no such tensor, expected \(96, 3, 5, 7, 7\)"),
        (
            {"netfcaud.3.weight": torch.zeros(256, 512)},
            r"netfcaud\.3\.weight: got \(256, 512\), expected \(1024, 512\)",
        ),
        ({"classifier.weight": torch.zeros(2)}, r"classifier\.weight: got \(2,\), expected no such tensor"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(network, change, message):
    weights = {k: v for k, v in {**network.state_dict(), **change}.items() if v is not None}
    with pytest.raises(InputError, match=message):
        SyncNet().fill(weights, "other.model")


def test_the_network_takes_what_the_authors_network_takes_and_repeats(network):
    faces = torch.randint(0, 255, (1, 5, 224, 224, 3), generator=torch.Generator().manual_seed(2)).float()
    with torch.no_grad():
        first, second = network.face_embedding(faces), network.face_embedding(faces)
        assert first.shape == (1, 1024)
        assert torch.equal(first, second)
        assert not torch.allclose(first, network.face_embedding(faces.flip(-1))), "the order of colours matters"
        assert network.sound_embedding(torch.zeros(3, 20, 13)).shape == (3, 1024)


def test_sound_that_comes_later_moves_the_scan_by_as_much(network):
    sound = np.random.default_rng(3).normal(size=640 * 40).astype(np.float32) * 0.1
    late = np.concatenate([np.zeros(3 * 640, np.float32), sound])
    now, then = network.sound_windows(sound, 30), network.sound_windows(late, 33)
    torch.testing.assert_close(then[5:33], now[2:30], rtol=1e-4, atol=1e-5)
    # What an untrained network says of every sound is taken out; what is left differs from sound to sound.
    now, then = ((found - now.mean(0)) / now.std() for found in (now, then))
    faces = now + 0.1 * torch.randn(30, 1024, generator=torch.Generator().manual_seed(4))
    assert confidence(offset_distances(faces, now))[2] == 0
    c, d, offset = confidence(offset_distances(faces, then[:30]))
    assert offset == 3
    assert c > 0
    assert d > 0


def test_distances_are_euclidean_and_zeros_stand_beyond_the_ends():
    faces, sounds = torch.eye(4)[:3] * 3, torch.eye(4)[:3] * 4
    found = offset_distances(faces, sounds, reach=1)
    expected = [[3.0, 1.0, 5.0], [5.0, 1.0, 5.0], [5.0, 1.0, 3.0]]
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-4, rtol=0)


def test_a_crop_shows_more_below_the_face_than_above_and_grey_beyond_the_picture():
    frame = np.zeros((200, 200, 3), np.uint8)
    frame[95:105, 95:105] = 250
    cut = crop_face(frame, np.array([100.0, 100.0, 40.0]))  # rows 60 to 172, columns 44 to 156
    assert cut.shape == (224, 224, 3)
    rows, columns = (cut[..., 0] > 125).nonzero().float().mean(0).tolist()
    assert rows == pytest.approx((100 - 60) * 2 - 0.5, abs=1)
    assert columns == pytest.approx((100 - 44) * 2 - 0.5, abs=1)
    assert crop_face(frame, np.array([10.0, 100.0, 40.0]))[0, 0, 0] == 110


def test_the_box_holds_all_landmarks():
    points = np.array([[[10.0, 20, 5], [50, 40, -9]]])
    assert face_boxes(points).tolist() == [[30, 30, 20]]


def clip(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (T, 64, 64, 3) of changing light and landmarks of a face that jumps for one frame."""
    rng = np.random.default_rng(5)
    pictures = np.repeat(rng.integers(0, 255, (frames, 1, 1, 1)), 64, 1).repeat(64, 2).repeat(3, 3).astype(np.uint8)
    pictures[:, :, :32] //= 2
    landmarks = np.tile(np.array([[20.0, 20, 0], [44, 44, 0]]), (frames, 1, 1))
    landmarks[frames // 2] += 15
    return pictures, landmarks


@pytest.mark.parametrize("batch", [1, 7, 30])
def test_a_stream_of_frames_gives_every_window_however_it_is_cut(batch):
    pictures, landmarks = clip(30)
    stream = FaceWindows(Bright())
    for first in range(0, 30, batch):
        stream.add(pictures[first : first + batch], landmarks[first : first + batch])
        assert len(stream._waiting) <= batch + 13
    found = stream.finish()
    assert found.shape == (26, 1024)
    steady = [crop_face(p, face_boxes(landmarks[:1])[0]).float().mean() for p in pictures]
    expected = torch.stack(steady).unfold(0, 5, 1)
    torch.testing.assert_close(found[:, :5], expected, msg="the jump of one frame is smoothed away")


def test_a_clip_shorter_than_a_second_is_refused():
    with pytest.raises(InputError, match="25 frames or more, got 12"):
        Bright().confidence_of(torch.zeros(8, 1024), np.zeros(16000))


def test_scores_carry_syncnets_own_figures_or_say_why_not():
    from adapt.evaluate.measures.base import Tools
    from adapt.evaluate.scoring import Scorer

    rng = np.random.default_rng(6)
    pictures, landmarks = rng.integers(0, 255, (30, 48, 48, 3)).astype(np.uint8), rng.uniform(8, 40, (30, 478, 3))
    masks = {name: np.ones((30, 48, 48), np.float32) for name in ("face", "head", "mouth_inside")}

    def scored(syncnet, sound) -> dict:
        def detect(frames):
            return landmarks[: len(frames)], np.ones(len(frames), bool)

        scorer = Scorer(Tools(detect, "-", "-", syncnet), expected=30, every=30)
        scorer.add(pictures / 255, pictures, landmarks, masks)
        return scorer.result("no features", sound)

    scores = scored(Bright(), rng.normal(size=30 * 640) * 0.1)
    assert scores["syncnet_d"] > 0
    assert scores["syncnet_c"] > 0
    assert -15 <= scores["syncnet_offset"] <= 15
    assert scored(Bright(), "the clip has no sound")["null_reasons"]["syncnet_c"] == "the clip has no sound"
    silent = scored("no weights given", rng.normal(size=30 * 640))
    assert silent["syncnet_c"] is silent["syncnet_d"] is None
    assert silent["null_reasons"]["syncnet_d"] == "no weights given"
