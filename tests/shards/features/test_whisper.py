"""Whisper as a feature: where its rows lie in time, its spectrogram, its window, any checkpoint of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs import InputError
from shards.features import open_feature
from shards.features.whisper import WINDOW, log_mel, standardised
from tests.shards.features.models import whisper, without
from tests.shards.features.sounds import clicks, noise, tone

TINY_EN = Path(__file__).parents[4] / "shared/models/whisper-tiny-en"
real = pytest.mark.skipif(not TINY_EN.is_dir(), reason="needs the encoder in ../shared/models/whisper-tiny-en")


def test_the_spectrogram_is_that_of_transformers_ten_milliseconds_later(tmp_path):
    from transformers import WhisperFeatureExtractor

    feature = open_feature(f"whisper={whisper(tmp_path / 'w')}")
    sound = np.concatenate([np.zeros(4000, np.float32), tone(1.0), noise(16_000), np.zeros(4000, np.float32)])
    ours = log_mel(sound, feature.filters(), 251)
    theirs = WhisperFeatureExtractor(feature_size=80)(sound, sampling_rate=16_000, return_tensors="np")
    np.testing.assert_allclose(ours[1:251], theirs.input_features[0].T[:250], atol=1e-4)


def symmetric(folder: Path) -> Path:
    """A Whisper whose layer adds nothing and whose convolutions look back as far as ahead: rows tell their time."""
    from safetensors.torch import load_file, save_file

    whisper(folder, encoder_layers=1)
    state = load_file(folder / "model.safetensors")
    for name in ("encoder.conv1.weight", "encoder.conv2.weight"):
        state[name] = state[name].mean(dim=2, keepdim=True).expand_as(state[name]).contiguous()
    for name, value in state.items():
        if "embed_positions" in name or "layers.0.self_attn.out_proj" in name or "layers.0.fc2" in name:
            value[:] = 0
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("at", [30, 60, 97])
def test_rows_are_centred_on_their_frame_within_five_milliseconds(tmp_path, at):
    feature = open_feature(f"whisper={symmetric(tmp_path / 'w')}")
    background = 0.01 * noise(640 * 130)

    def response(sample: int) -> np.ndarray:
        changed = feature.extract(background + clicks([sample], len(background))) - feature.extract(background)
        return np.abs(changed).sum(axis=1)

    # A click in the middle of a frame answers equally on both sides of it; the centre of the answer tells the time.
    answer = response(640 * at + 320)
    assert answer.argmax() == at
    near = slice(at - 3, at + 4)
    times = 40.0 * np.arange(len(answer)) + 20.0
    assert abs((answer[near] * times[near]).sum() / answer[near].sum() - (40.0 * at + 20.0)) < 5.0
    later = response(640 * at + 320 + 160)  # 10 ms
    moved = (later[near] * times[near]).sum() / later[near].sum()
    assert 2.0 < moved - (40.0 * at + 20.0) < 20.0


def test_checkpoints_with_and_without_the_head_that_writes_text_give_the_same_rows(tmp_path):
    plain = open_feature(f"whisper={whisper(tmp_path / 'plain')}")
    captions = open_feature(f"whisper={whisper(tmp_path / 'captions', captions=True)}")
    assert set(plain.record["weights"]) == {"source", "sha256"}
    assert captions.extract(tone(1.0)).shape == plain.extract(tone(1.0)).shape == (25, 32)


def test_another_number_of_mel_bands_is_read_from_the_config(tmp_path):
    assert open_feature(f"whisper={whisper(tmp_path / 'w', num_mel_bins=128)}").extract(tone(1.0)).shape == (25, 32)


def test_a_model_with_fewer_positions_than_a_window_is_refused(tmp_path):
    with pytest.raises(InputError, match="has 50 positions, a window needs"):
        open_feature(f"whisper={whisper(tmp_path / 'w', max_source_positions=50)}").load()


def test_sound_after_the_window_changes_nothing(tmp_path):
    feature = open_feature(f"whisper={whisper(tmp_path / 'w')}")
    reach = feature.block + feature.context
    first, second = noise(640 * (reach + 60), 1), noise(640 * (reach + 60), 1)
    second[reach * 640 + WINDOW :] = 0
    np.testing.assert_array_equal(feature.extract(first)[: feature.block], feature.extract(second)[: feature.block])


def test_the_upper_half_of_the_encoder_is_not_needed(tmp_path):
    whole = open_feature(f"whisper={whisper(tmp_path / 'whole', encoder_layers=4)}")
    half = open_feature(f"whisper={without(whisper(tmp_path / 'half', encoder_layers=4), 'layers.2', 'layers.3')}")
    np.testing.assert_array_equal(whole.extract(tone(1.0)), half.extract(tone(1.0)))


@real
def test_the_real_encoder_in_its_window_is_near_the_one_that_pads_to_30_seconds():
    import torch
    from transformers import WhisperFeatureExtractor, WhisperModel

    feature = open_feature(f"whisper={TINY_EN}")
    sound = speechlike(20.0)
    model = WhisperModel.from_pretrained(TINY_EN, dtype=torch.float32).eval().encoder
    mel = WhisperFeatureExtractor(feature_size=80)(np.pad(sound, (160, 0)), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        padded = model(mel.input_features, output_hidden_states=True).hidden_states[2][0].numpy()
    frames = len(sound) // 640
    whole = standardised(padded[1 : 1 + 2 * frames]).reshape(frames, 2, -1).mean(axis=1)
    rows = feature.extract(sound)
    likeness = [np.corrcoef(a, b)[0, 1] for a, b in zip(rows - rows.mean(0), whole - whole.mean(0))]
    assert np.mean(likeness) > 0.8


def speechlike(seconds: float) -> np.ndarray:
    """The synthetic talkers' voice."""
    from shards.synthetic.speech.voice import compose, sample_voice, speak

    rng = np.random.default_rng(3)
    style = sample_voice(rng, 0.5)
    return np.asarray(speak(compose(seconds, rng, style), style, rng), np.float32)[: int(seconds * 16_000)]
