"""Whisper for live use: rows do not depend on the feeds, hear no more than they say, and are the encoder's own."""

from __future__ import annotations

import numpy as np
import pytest

from configs import InputError
from shards.features import open_feature
from shards.features.logmel import logmel
from shards.features.whisper import EACH, RANGE, WINDOW, decades, standardised
from shards.features.whisper_live import (
    BEFORE,
    BEHIND,
    BLOCK,
    HEARD,
    LAYOUT,
    MEL_SIDE,
    MEL_SIZE,
    TAIL,
    WhisperLive,
    samples,
)
from tests.shards.features.models import whisper
from tests.shards.features.sounds import noise

WIDTH = 32  # of the tests' model


@pytest.fixture(scope="module")
def feature(tmp_path_factory):
    return open_feature(f"whisper-live={whisper(tmp_path_factory.mktemp('whisper') / 'w')}")


def test_a_row_is_five_frames_of_the_encoder_and_five_of_log_mel(feature):
    rows = feature.extract(noise(640 * 12 + 99))
    assert rows.shape == (12, feature.size) == (12, 5 * 32 + 5 * 160)
    assert rows.dtype == np.float32
    assert feature.record["size"] == feature.size
    assert WhisperLive.default_size == 5 * 384 + 5 * 160


def test_a_stream_in_pieces_of_any_size_gives_the_rows_of_the_file_and_of_single_frames(feature):
    sound = noise(640 * (2 * BLOCK + 30) + 321)
    whole = feature.extract(sound)
    stream, parts, at = feature.stream(), [], 0
    for size in [1, 639, 640, 641, 5000, 0, 77] * 40:
        parts.append(stream.push(sound[at : at + size]))
        at += size
    assert np.array_equal(np.concatenate([*parts, stream.finish()]), whole)
    assert len(whole) == 2 * BLOCK + 30
    some = np.array([3, 0, 41, 2 * BLOCK + 29, 2 * BLOCK, 3])
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


def test_sound_before_a_block_and_the_positions_behind_it_changes_nothing_and_is_not_kept(feature):
    sound = noise(640 * (BLOCK + 20))
    changed = sound.copy()
    changed[: max(0, 640 * (BLOCK + 1) + feature.reach - HEARD)] = 0
    assert np.array_equal(feature.extract(sound)[BLOCK:], feature.extract(changed)[BLOCK:])
    changed[: 640 * (BLOCK + 1) + feature.reach - HEARD + 1000] = 0
    assert not np.array_equal(feature.extract(sound)[BLOCK:], feature.extract(changed)[BLOCK:])
    stream = feature.stream()
    for _ in range(3):
        stream.push(sound)
    assert stream._held.nbytes <= 4 * HEARD


def levels(feature, sound, positions, loudest=None):
    """What the encoder takes in of the last positions of ``sound``, and its maximum."""
    found = decades(np.pad(sound[-samples(positions) :], (0, WINDOW // 2)), feature.filters())
    most = found.max() if loudest is None else loudest
    mel = np.pad((np.maximum(found, most - RANGE) + 4) / 4, ((0, 1), (0, 0)))
    return mel.astype(np.float32), most


def convolved(encoder, mel, at):
    """Inputs of the first layer, from position ``at`` on."""
    import torch
    from torch.nn import functional as F

    x = torch.from_numpy(mel.T.copy())[None]
    x = F.gelu(F.conv1d(x, encoder.conv1.weight, encoder.conv1.bias))
    x = F.gelu(F.conv1d(x, encoder.conv2.weight, encoder.conv2.bias, stride=2))[0].T
    return x + encoder.embed_positions.weight[at : at + len(x)]


def rows_of(hidden):
    last = standardised(hidden.numpy())[-EACH * LAYOUT.encoded :]
    return last.reshape(LAYOUT.encoded, EACH, -1).mean(1).ravel()


def test_the_first_row_of_a_block_is_that_of_the_encoder_over_all_of_its_positions(feature):
    import torch

    sound, encoder = noise(640 * (2 * BLOCK + 4)), feature.encoder()
    row = feature.extract(sound)[2 * BLOCK]
    with torch.inference_mode():
        x = convolved(encoder, levels(feature, sound, BEHIND + TAIL)[0], 0)[None]
        for layer in encoder.layers:
            x = layer(x, None)
            x = x[0] if isinstance(x, tuple) else x
    np.testing.assert_allclose(row[: LAYOUT.encoded * WIDTH], rows_of(x.reshape(-1, WIDTH)), atol=1e-4)
    mels = logmel(sound)[2 * BLOCK - MEL_SIDE : 2 * BLOCK + MEL_SIDE + 1]
    np.testing.assert_allclose(row[LAYOUT.encoded * WIDTH :].reshape(-1, MEL_SIZE), mels, atol=1e-5)
    assert LAYOUT.loudness(row) == pytest.approx(mels[MEL_SIDE].mean(), abs=1e-5)
    assert LAYOUT.encoded > BEFORE


def test_later_rows_attend_to_keys_and_values_that_positions_had_when_they_left_the_tail(feature):
    import torch

    def heads(x):
        return x.unflatten(-1, (2, -1)).transpose(0, 1)

    steps, encoder = 4, feature.encoder()
    sound = noise(640 * (2 * BLOCK + 3 + steps))
    got = feature.extract(sound)[2 * BLOCK : 2 * BLOCK + steps]
    past, loudest = [[] for _ in encoder.layers], -np.inf
    with torch.inference_mode():
        for step in range(steps):
            end = 640 * (2 * BLOCK + 4 + step)
            count = TAIL if step else BEHIND + TAIL
            mel, most = levels(feature, sound[:end], count, loudest if step else None)
            loudest = max(loudest, most)
            at = EACH * step + (BEHIND if step else 0)
            x = convolved(encoder, mel, at)
            for layer, seen in zip(encoder.layers, past):
                attention, normal = layer.self_attn, layer.self_attn_layer_norm(x)
                seen[at:] = list(zip(attention.k_proj(normal), attention.v_proj(normal)))
                known = seen[max(0, at - BEHIND) :]
                key, value = (heads(torch.stack([pair[i] for pair in known])) for i in (0, 1))
                query = heads(attention.q_proj(normal)) * (WIDTH // 2) ** -0.5
                share = (query @ key.transpose(1, 2)).softmax(-1)
                x = x + attention.out_proj((share @ value).transpose(0, 1).flatten(1))
                x = x + layer.fc2(torch.nn.functional.gelu(layer.fc1(layer.final_layer_norm(x))))
            np.testing.assert_allclose(got[step][: LAYOUT.encoded * WIDTH], rows_of(x), atol=1e-4)


def test_a_checkpoint_with_fewer_positions_than_a_block_is_refused(tmp_path):
    with pytest.raises(InputError, match="has 400 positions, a window needs"):
        open_feature(f"whisper-live={whisper(tmp_path / 'w', max_source_positions=400)}").load()
