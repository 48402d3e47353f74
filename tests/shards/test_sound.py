"""Decoding sound: time, alignment, streams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs import InputError
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
