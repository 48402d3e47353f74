"""Decoding sound and audio features: time, alignment, streams, exactly one vector per frame."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs import InputError
from shards.features import FEATURES, FeatureStream, extract_features, feature_size, logmel
from shards.media.sound import read_audio, stream_audio


def tone(seconds: float, hertz: float = 440.0, rate: int = 16_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def clicks(at: list[int], length: int) -> np.ndarray:
    audio = np.zeros(length, np.float32)
    audio[at] = 0.9
    return audio


def test_a_wav_of_another_rate_and_two_channels_becomes_16_khz_mono_of_the_same_length(tmp_path):
    stereo = np.stack([tone(1.5, rate=44_100)] * 2, axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44_100)
    audio = read_audio(tmp_path / "a.wav")
    assert audio.dtype == np.float32
    assert abs(len(audio) - 24_000) <= 32
    middle = slice(4000, 20_000)
    assert np.corrcoef(audio[middle], tone(1.5)[middle])[0, 1] > 0.999


def test_streaming_in_blocks_gives_the_same_samples(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(2.3), 16_000)
    blocks = list(stream_audio(tmp_path / "a.wav", block=5000))
    assert {len(block) for block in blocks[:-1]} == {5000}
    assert np.array_equal(np.concatenate(blocks), read_audio(tmp_path / "a.wav"))


def write_mp4(path: Path, audio: np.ndarray, seconds: float, audio_delay: float = 0.0) -> None:
    """A video with AAC sound; the sound may start later than the picture."""
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for i in range(int(seconds * 25)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), i, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        for start in range(0, len(audio), 1024):
            piece = av.AudioFrame.from_ndarray(audio[None, start : start + 1024], format="fltp", layout="mono")
            piece.sample_rate, piece.pts = 16_000, start + int(audio_delay * 16_000)
            container.mux(sound.encode(piece))
        container.mux(sound.encode(None))


@pytest.mark.parametrize("delay", [0.0, 0.4])
def test_aac_priming_and_a_late_start_keep_the_sound_in_time_with_the_picture(tmp_path, delay):
    write_mp4(tmp_path / "a.mp4", clicks([8000, 20_000], 32_000), 2.5, delay)
    audio = read_audio(tmp_path / "a.mp4")
    late = int(delay * 16_000)
    for at in (8000 + late, 20_000 + late):
        found = at - 800 + int(np.abs(audio[at - 800 : at + 800]).argmax())
        assert abs(found - at) < 160, (found, at)  # a reader that ignores priming is 1024 samples off


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file|No such file"), (b"", "sound"), (b"not a sound" * 99, "sound")]
)
def test_what_is_no_sound_is_refused_in_one_sentence(tmp_path, content, message):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_audio(path)


def test_a_silent_video_is_refused_by_name(tmp_path):
    import av

    with av.open(str(tmp_path / "silent.mp4"), "w") as container:
        video = container.add_stream("mpeg4", rate=25, width=32, height=32, pix_fmt="yuv420p")
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(video.encode(None))
    with pytest.raises(InputError, match=r"silent.mp4: has no audio stream"):
        read_audio(tmp_path / "silent.mp4")


def test_logmel_has_one_finite_row_per_frame_and_follows_the_sound():
    audio = np.concatenate([np.zeros(6400, np.float32), tone(0.4, 1000.0), np.zeros(6400, np.float32)])
    rows = logmel(audio)
    assert rows.shape == (30, FEATURES["logmel"])
    assert np.isfinite(rows).all()
    loud = rows.max(axis=1) > 0
    assert loud[10:20].all()
    assert not loud[:9].any()
    assert not loud[21:].any()


def test_logmel_rows_are_centred_on_their_frame():
    # A click in the middle of frame 5 lies between its second and third step, whatever the window.
    row = logmel(clicks([5 * 640 + 320], 6400))[5].reshape(4, 40).mean(axis=1)
    assert row[1] == pytest.approx(row[2], abs=0.02)  # half a sample is no frame
    assert row[1] > row[0] + 0.3
    assert row[2] > row[3] + 0.3


def test_a_louder_file_does_not_change_the_rows_of_a_quiet_part():
    rng = np.random.default_rng(0)
    quiet = 0.01 * rng.normal(size=16_000).astype(np.float32)
    # Matrix products of another size round differently; a normalisation over the file would move rows by far more.
    assert np.allclose(logmel(np.concatenate([quiet, 30 * quiet]))[:24], logmel(quiet)[:24], atol=1e-4)


@pytest.mark.parametrize("sizes", [[1], [160, 7, 2000], [640], [100_000]])
def test_a_stream_of_logmel_gives_the_same_rows_however_it_is_cut(sizes):
    audio = 0.1 * np.random.default_rng(1).normal(size=1600 if sizes == [1] else 20_123).astype(np.float32)
    stream, rows, at, turn = FeatureStream("logmel"), [], 0, 0
    while at < len(audio):
        rows.append(stream.push(audio[at : at + sizes[turn % len(sizes)]]))
        at, turn = at + sizes[turn % len(sizes)], turn + 1
    rows.append(stream.finish())
    np.testing.assert_allclose(np.concatenate(rows), logmel(audio), atol=1e-5)


def test_unknown_features_are_refused():
    with pytest.raises(InputError, match="expected logmel"):
        extract_features("mfcc", np.zeros(640, np.float32))


# ---------------------------------------------------------------------------------------------------- speech models


def tiny_speech_model(folder: Path, kind: str, **changes) -> Path:
    """A randomly initialised model of 2 layers with the usual strides, saved as transformers does."""
    import torch
    from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    config, model = {"wav2vec2": (Wav2Vec2Config, Wav2Vec2Model), "hubert": (HubertConfig, HubertModel)}[kind]
    small = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "conv_dim": (16,) * 7,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 2,
    }
    model(config(**{**small, **changes})).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    return folder


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert"])
def test_speech_models_give_exactly_one_finite_row_per_frame(tmp_path, kind):
    folder = tiny_speech_model(tmp_path / kind, kind)
    name = f"{kind}={folder}"
    assert feature_size(name) == 32
    for frames in (1, 2, 37, 130):
        rows = extract_features(name, 0.1 * np.random.default_rng(frames).normal(size=frames * 640 + 13))
        assert rows.shape == (frames, 32)
        assert np.isfinite(rows).all()


def test_speech_rows_stream_as_they_are_extracted_and_follow_the_time(tmp_path):
    name = f"wav2vec2={tiny_speech_model(tmp_path / 'w', 'wav2vec2')}"
    audio = 0.1 * np.random.default_rng(0).normal(size=640 * 140).astype(np.float32)
    stream = FeatureStream(name)
    rows = [stream.push(audio[at : at + 9999]) for at in range(0, len(audio), 9999)]
    np.testing.assert_allclose(np.concatenate([*rows, stream.finish()]), extract_features(name, audio), atol=1e-5)


def test_a_model_with_another_stride_is_interpolated_to_one_row_per_frame(tmp_path):
    folder = tiny_speech_model(
        tmp_path / "w", "wav2vec2", conv_stride=(5, 3, 2, 2, 2, 2, 2), conv_kernel=(10, 3, 3, 3, 3, 2, 2)
    )
    assert extract_features(f"wav2vec2={folder}", tone(1.0)).shape == (25, 32)


def test_a_checkpoint_that_is_not_there_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        extract_features(f"hubert={tmp_path / 'nothing'}", np.zeros(640, np.float32))
