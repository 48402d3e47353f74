"""Whisper for live use: rows do not depend on the feeds, hear no more than they say, and are the encoder's own."""

from __future__ import annotations

import numpy as np
import pytest

from configs import InputError
from shards.features import open_feature
from shards.features.logmel import logmel
from shards.features.whisper import log_mel, standardised
from shards.features.whisper_live import BEFORE, LAYOUT, MEL_SIDE, MEL_SIZE, SEEN, WhisperLive
from tests.shards.features.models import whisper
from tests.shards.features.sounds import noise

WINDOW = SEEN * 640


@pytest.fixture(scope="module")
def feature(tmp_path_factory):
    return open_feature(f"whisper-live={whisper(tmp_path_factory.mktemp('whisper') / 'w')}")


def test_a_row_is_five_frames_of_the_encoder_and_five_of_log_mel(feature):
    rows = feature.extract(noise(640 * 12 + 99))
    assert rows.shape == (12, feature.size) == (12, 5 * 32 + 5 * 160)
    assert rows.dtype == np.float32
    assert feature.record["size"] == feature.size
    assert WhisperLive.default_size == 5 * 384 + 5 * 160


def test_a_stream_in_pieces_of_any_size_gives_the_rows_of_the_file(feature):
    sound = noise(640 * 70 + 321)
    whole = feature.extract(sound)
    stream, parts, at = feature.stream(), [], 0
    for size in [1, 639, 640, 641, 5000, 0, 77] * 20:
        parts.append(stream.push(sound[at : at + size]))
        at += size
    assert np.array_equal(np.concatenate([*parts, stream.finish()]), whole)
    assert len(whole) == 70
    some = np.array([0, 3, 41, 69])
    assert np.array_equal(feature.rows_at(sound, some), whole[some])


def test_a_row_comes_with_its_look_ahead_and_hears_nothing_after_it(feature):
    sound, at = noise(640 * 80), 60
    end = 640 * (at + 1) + feature.reach
    assert feature.reach == 1920
    stream = feature.stream()
    assert len(stream.push(sound[: end - 1])) == at
    row = stream.push(sound[end - 1 : end])
    assert len(row) == 1
    whole, later, sooner = feature.extract(sound), sound.copy(), sound.copy()
    later[end:] = 0
    sooner[end - 160] += 0.5
    assert np.array_equal(whole[at], row[0])
    assert np.array_equal(feature.extract(later)[at], row[0])
    assert not np.array_equal(feature.extract(sooner)[at], row[0])


def test_sound_before_the_window_changes_nothing_and_is_not_kept(feature):
    sound = noise(640 * 120)
    changed = sound.copy()
    changed[: 640 * 100 + feature.reach - WINDOW] = 0
    assert np.array_equal(feature.extract(sound)[99:], feature.extract(changed)[99:])
    stream = feature.stream()
    for _ in range(4):
        stream.push(sound)
    assert stream._held.nbytes <= 4 * WINDOW


def test_rows_are_those_of_the_encoder_over_the_whole_window(feature):
    import torch

    sound = noise(WINDOW)
    row = feature.extract(sound)[SEEN - 1 - int(LAYOUT.ahead)]
    mel = log_mel(sound, feature.filters(), 2 * feature.positions)
    with torch.inference_mode():
        hidden = feature.encoder()(torch.from_numpy(mel.T.copy())[None]).last_hidden_state[0].numpy()
    last = standardised(hidden)[-2 * LAYOUT.encoded :].reshape(LAYOUT.encoded, 2, -1).mean(1)
    np.testing.assert_allclose(row[: LAYOUT.encoded * 32].reshape(LAYOUT.encoded, 32), last, atol=1e-4)
    own = SEEN - 1 - int(LAYOUT.ahead)
    mels = logmel(sound)[own - MEL_SIDE : own + MEL_SIDE + 1]
    np.testing.assert_allclose(row[LAYOUT.encoded * 32 :].reshape(-1, MEL_SIZE), mels, atol=1e-5)
    assert LAYOUT.loudness(row) == pytest.approx(mels[MEL_SIDE].mean(), abs=1e-5)
    assert LAYOUT.encoded > BEFORE


def test_a_checkpoint_with_fewer_positions_than_the_window_is_refused(tmp_path):
    with pytest.raises(InputError):
        open_feature(f"whisper-live={whisper(tmp_path / 'w', max_source_positions=50)}").load()
