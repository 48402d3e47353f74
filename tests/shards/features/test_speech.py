"""Speech encoders: one row a frame, the same from a stream, and weights that are whole or refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from configs import InputError
from shards.features import open_feature
from tests.shards.features.models import convolutional, whisper, without
from tests.shards.features.sounds import noise, tone

KINDS = ["wav2vec2", "hubert", "wavlm", "whisper"]


def folder_of(tmp_path, kind, **changes):
    return whisper(tmp_path / kind, **changes) if kind == "whisper" else convolutional(tmp_path / kind, kind, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_speech_models_give_exactly_one_finite_row_per_frame(tmp_path, kind):
    feature = open_feature(f"{kind}={folder_of(tmp_path, kind)}")
    assert feature.size == 32
    for frames in (1, 2, 37, 330):
        rows = feature.extract(noise(frames * 640 + 13, frames))
        assert rows.shape == (frames, 32)
        assert rows.dtype == np.float32
        assert np.isfinite(rows).all()
    assert feature.extract(noise(639)).shape == (0, 32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("piece", [9999, 640, 100_000])
def test_rows_of_a_stream_are_those_of_the_file_however_it_is_cut(tmp_path, kind, piece):
    feature, sound = open_feature(f"{kind}={folder_of(tmp_path, kind)}"), noise(640 * 340)
    stream = feature.stream()
    rows = [stream.push(sound[at : at + piece]) for at in range(0, len(sound), piece)]
    np.testing.assert_array_equal(np.concatenate([*rows, stream.finish()]), feature.extract(sound))


def test_a_model_with_another_stride_is_interpolated_to_one_row_per_frame(tmp_path):
    changes = {"conv_stride": (5, 3, 2, 2, 2, 2, 2), "conv_kernel": (10, 3, 3, 3, 3, 2, 2)}
    folder = convolutional(tmp_path / "w", "wav2vec2", **changes)
    assert open_feature(f"wav2vec2={folder}").extract(tone(1.0)).shape == (25, 32)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_file_of_half_precision_is_computed_in_single(tmp_path, kind, dtype):
    half = open_feature(f"{kind}={folder_of(tmp_path, kind, dtype=dtype)}").extract(tone(1.0))
    full = open_feature(f"{kind}={folder_of(tmp_path / 'full', kind)}").extract(tone(1.0))
    assert half.dtype == np.float32
    assert np.abs(half - full).mean() < (0.02 if dtype == "float16" else 0.1) * np.abs(full).mean()


@pytest.mark.parametrize(
    ("kind", "lost"),
    [
        ("wav2vec2", "layers.1.attention"),
        ("hubert", "parametrizations.weight.original0"),  # a weight norm that was fused away
        ("wavlm", "pos_conv_embed"),
        ("whisper", "encoder.layers.0.fc1"),
        ("whisper", "embed_positions"),
        ("whisper", "encoder"),
    ],
)
def test_a_checkpoint_that_lacks_tensors_is_refused_by_their_names(tmp_path, kind, lost):
    folder = without(folder_of(tmp_path, kind), lost)
    with pytest.raises(InputError, match=r"lacks \d+ tensors of its model \(.*\).*save_pretrained"):
        open_feature(f"{kind}={folder}").load()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_are_not_finite_are_refused(tmp_path, kind):
    from safetensors.torch import load_file, save_file

    folder = folder_of(tmp_path, kind)
    state = load_file(folder / "model.safetensors")
    name = next(n for n in sorted(state) if "layers.0.final_layer_norm.weight" in n and "decoder" not in n)
    state[name][3] = float("nan")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="infinite or undefined"):
        open_feature(f"{kind}={folder}").load()


def test_a_checkpoint_that_is_not_there_is_refused_with_the_command_that_gets_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"cannot be loaded.*--features hubert=FOLDER"):
        open_feature(f"hubert={tmp_path / 'nothing'}").load()
    with pytest.raises(InputError, match="hf download nobody/nothing-of-this-name"):
        open_feature("hubert=nobody/nothing-of-this-name").load()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no model.safetensors.*convert it"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"nonsense" * 9), "cannot be loaded"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_folder_is_refused_in_one_sentence(tmp_path, kind, damage, message):
    folder = folder_of(tmp_path, kind)
    damage(folder)
    with pytest.raises(InputError, match=message) as refused:
        open_feature(f"{kind}={folder}").load()
    assert "\n" not in str(refused.value)


def test_a_model_of_another_type_is_refused(tmp_path):
    folder = convolutional(tmp_path / "w", "wav2vec2")
    with pytest.raises(InputError, match=re.escape("is a wav2vec2 model, expected whisper")):
        open_feature(f"whisper={folder}").load()
