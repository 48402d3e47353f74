"""Which sound is heard: tracks, channels, levels, and what of it is said."""

from __future__ import annotations

import logging
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from configs import InputError
from shards.media.encode import sound_format
from shards.media.probe import video_info
from shards.media.sound import read_audio, stream_sound
from shards.media.tracks import sound_track


def tone(hertz: float, seconds: float = 1.0, rate: int = 48_000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def write_tracks(
    path: Path, tracks: list[np.ndarray], default: int | None = None, codec: str = "aac", languages: str = "en fr de"
) -> Path:
    """A file with several sound tracks ``[channels, n]`` at 48 kHz; ``default`` is the one so marked."""
    with av.open(str(path), "w") as container:
        streams = []
        for k, samples in enumerate(tracks):
            stream = container.add_stream(codec, rate=48_000, layout={1: "mono", 2: "stereo"}[len(samples)])
            stream.metadata["language"] = {"en": "eng", "fr": "fra", "de": "deu"}[languages.split()[k]]
            stream.disposition = av.stream.Disposition.default if k == default else av.stream.Disposition(0)
            streams.append(stream)
        for at in range(0, tracks[0].shape[1], 1024):
            for stream, samples in zip(streams, tracks):
                block = np.ascontiguousarray(samples[:, at : at + 1024])
                frame = av.AudioFrame.from_ndarray(block, "fltp", stream.codec_context.layout.name)
                frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def hertz_of(sound: np.ndarray) -> float:
    return float(np.abs(np.fft.rfft(sound[4000:12_000])).argmax() * 2)


def test_the_track_marked_default_is_heard(tmp_path, caplog):
    path = write_tracks(tmp_path / "a.mkv", [tone(400)[None], tone(800)[None], tone(1200)[None]], default=1)
    with caplog.at_level(logging.WARNING):
        assert hertz_of(read_audio(path)) == pytest.approx(800, abs=4)
    assert "has 3 sound tracks, number 2 (fre) is heard: marked default" in caplog.text.replace("(fra)", "(fre)")


def test_a_silent_first_track_is_passed_over(tmp_path, caplog):
    silent = np.zeros((1, 48_000), np.float32)
    for default in (None, 0):
        path = write_tracks(tmp_path / f"{default}.mkv", [silent, tone(800)[None]], default=default)
        with caplog.at_level(logging.WARNING):
            assert hertz_of(read_audio(path)) == pytest.approx(800, abs=4)
        assert sound_track(path).index == 1
    assert "number 2" in caplog.text
    assert "the first that is not silent" in caplog.text


def test_where_every_track_is_silent_the_first_is_taken(tmp_path):
    silent = np.zeros((1, 48_000), np.float32)
    path = write_tracks(tmp_path / "a.mkv", [silent, silent])
    assert sound_track(path).index == 0
    assert np.abs(read_audio(path)).max() < 1e-4


def test_channels_of_opposite_phase_are_not_silence(tmp_path, caplog):
    voice = tone(700)
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([voice, -voice], 1), 48_000)
    with caplog.at_level(logging.WARNING):
        sound = read_audio(path)
    assert np.abs(sound).max() == pytest.approx(0.3, abs=0.01)
    assert hertz_of(sound) == pytest.approx(700, abs=4)
    assert "its two channels cancel each other, channel" in caplog.text
    both = np.concatenate(list(stream_sound(path, rate=48_000, layout="stereo")), 1)
    assert np.abs(both[0] + both[1]).max() < 1e-3  # a listener gets both as they were


def test_ordinary_stereo_is_mixed(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.stack([tone(400), tone(800)], 1), 48_000)
    spectrum = np.abs(np.fft.rfft(read_audio(tmp_path / "a.wav")[:16_000]))
    assert spectrum[400] == pytest.approx(spectrum[800], rel=0.05)
    assert not sound_track(tmp_path / "a.wav").note


@pytest.mark.parametrize("factor", [1.02, 5.0])
def test_samples_beyond_full_scale_are_turned_down_and_not_cut_off(tmp_path, caplog, factor):
    loud = tone(500) / 0.3 * factor
    soundfile.write(tmp_path / "a.wav", loud, 48_000, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        sound = read_audio(tmp_path / "a.wav")
    assert np.abs(sound).max() == pytest.approx(1.0, abs=0.02)
    inner = sound[4000:12_000]
    spectrum = np.abs(np.fft.rfft(inner * np.hanning(len(inner))))
    assert spectrum[3 * 250 - 5 : 3 * 250 + 5].max() < 1e-3 * spectrum.max()  # no third harmonic: nothing was cut
    assert ("times full scale" in caplog.text) == (factor > 1.2)


def test_samples_that_are_no_numbers_become_silence(tmp_path):
    broken = tone(500)
    broken[10_000:10_100] = np.nan
    broken[20_000] = np.inf
    soundfile.write(tmp_path / "a.wav", broken, 48_000, subtype="FLOAT")
    assert np.isfinite(read_audio(tmp_path / "a.wav")).all()


def test_a_stream_that_changes_its_channels_goes_on(tmp_path):
    """As broadcasts do between programmes: an MPEG transport stream of mono, then stereo."""
    parts = [write_tracks(tmp_path / "1.ts", [tone(400)[None]], codec="mp2"),
             write_tracks(tmp_path / "2.ts", [np.stack([tone(800)] * 2)], codec="mp2")]  # fmt: skip
    joined = tmp_path / "joined.ts"
    with av.open(str(joined), "w") as out:
        stream, shift = None, 0
        for part in parts:
            with av.open(str(part)) as container:
                source = container.streams.audio[0]
                stream = stream or out.add_stream_from_template(source)
                packets = [p for p in container.demux(source) if p.size]
                low = packets[0].pts
                for packet in packets:
                    packet.pts = packet.dts = packet.pts - low + shift
                    packet.stream = stream
                    out.mux(packet)
                shift += packets[-1].pts - shift + packets[-1].duration
    sound = read_audio(joined)
    assert hertz_of(sound) == pytest.approx(400, abs=4)
    assert hertz_of(sound[16_000:]) == pytest.approx(800, abs=4)
    assert len(sound) == pytest.approx(32_000, abs=1600)


def test_a_file_that_is_replaced_is_listened_to_again(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(500), 48_000)
    assert sound_format(path) == (48_000, "mono")
    soundfile.write(path, np.stack([tone(500, rate=44_100)] * 2, 1), 44_100)
    assert sound_format(path) == (44_100, "stereo")


def test_a_track_in_an_unknown_codec_is_passed_over_and_alone_it_is_refused(tmp_path):
    """As of phones that record spatial sound beside AAC."""
    two = write_tracks(tmp_path / "two.mov", [tone(400)[None], tone(800)[None]], codec="pcm_s16le")
    data = two.read_bytes()
    at = data.index(b"sowt")
    two.write_bytes(data[:at] + b"apac" + data[at + 4 :])
    assert hertz_of(read_audio(two)) == pytest.approx(800, abs=4)
    one = write_tracks(tmp_path / "one.mov", [tone(400)[None]], codec="pcm_s16le")
    one.write_bytes(one.read_bytes().replace(b"sowt", b"apac"))
    with pytest.raises(InputError, match="codec that FFmpeg does not know"):
        read_audio(one)


def test_of_several_programmes_the_sound_that_belongs_to_the_pictures_is_heard(tmp_path):
    """A broadcast multiplex, written by the ffmpeg program."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs the ffmpeg program")
    sources = [("sine=frequency=400", "64x64"), ("sine=frequency=800", "128x96")]
    inputs = [
        arg
        for sine, size in sources
        for arg in ("-f", "lavfi", "-i", f"testsrc=s={size}:r=25", "-f", "lavfi", "-i", sine)
    ]
    maps = ["-map", "1", "-map", "0", "-map", "2", "-map", "3"]
    programs = ["-program", "title=a:st=0:st=1", "-program", "title=b:st=2:st=3"]
    command = ["ffmpeg", "-v", "error", *inputs, *maps, *programs, "-t", "2", "-c:v", "mpeg2video", "-c:a", "mp2"]
    subprocess.run([*command, str(tmp_path / "a.ts")], check=True)
    width = video_info(tmp_path / "a.ts").width
    assert hertz_of(read_audio(tmp_path / "a.ts")) == pytest.approx({64: 400, 128: 800}[width], abs=4)


@pytest.mark.parametrize("channels", [2, 3, 6, 7, 8, 16])
def test_loud_channels_are_mixed_without_leaving_full_scale(tmp_path, channels):
    """A mix reaches further than its channels; beyond ±1 it would be cut off when it is stored."""
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.repeat(3.2 * tone(800)[:, None], channels, 1), 48_000, subtype="PCM_16")
    sound = read_audio(path)[2000:-2000]
    assert np.abs(sound).max() == pytest.approx(1.0, abs=0.005)
    assert hertz_of(sound) == pytest.approx(800, abs=4)
    # What the video of an avatar carries on is as loud as it was.
    stereo = np.concatenate(list(stream_sound(path, layout="stereo")), 1)
    if channels == 2:
        assert np.abs(stereo[:, 2000:-2000]).max() == pytest.approx(0.96, abs=0.005)


def test_sound_of_eight_channels_in_aac_is_heard(tmp_path):
    path = tmp_path / "surround.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000, layout="7.1")
        planar = av.AudioResampler(format="fltp", layout="7.1", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.repeat(0.3 * tone(800), 8)[None], "flt", "7.1")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        for block in planar.resample(frame):
            container.mux(stream.encode(block))
        container.mux(stream.encode(None))
    assert hertz_of(read_audio(path)) == pytest.approx(800, abs=4)


def test_channels_that_cannot_be_mixed_are_a_sentence(tmp_path):
    path = tmp_path / "nine.wav"
    soundfile.write(path, np.repeat(tone(800)[:, None], 9, 1), 48_000, subtype="PCM_16")
    with pytest.raises(InputError, match=r"nine\.wav: its 9 channels of sound cannot be mixed"):
        read_audio(path)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 2])
def test_samples_that_are_no_numbers_are_silence_and_leave_the_others_as_they_are(tmp_path, caplog, broken, channels):
    sound = np.repeat(tone(400, rate=16_000)[:, None], channels, 1)
    soundfile.write(tmp_path / "whole.wav", sound, 16_000, subtype="FLOAT")
    sound[8000] = broken
    soundfile.write(tmp_path / "a.wav", sound, 16_000, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        heard = read_audio(tmp_path / "a.wav")
    assert np.delete(heard, 8000) == pytest.approx(np.delete(read_audio(tmp_path / "whole.wav"), 8000), abs=1e-4)
    assert heard[8000] == 0
    assert sound_track(tmp_path / "a.wav").broken == channels
    assert "count" in caplog.text
    assert "as silence" in caplog.text
    assert "turned down" not in caplog.text


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_a_wav_that_a_transfer_cut_off_is_refused(tmp_path, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(400, 4.0, 16_000), 16_000, subtype=subtype)
    assert len(read_audio(path)) == 64_000
    data = path.read_bytes()
    for kept, held in ((0.5, "2.0"), (0.9, "3.6")):
        cut = tmp_path / f"{held}.wav"
        cut.write_bytes(data[: round(kept * len(data))])
        with pytest.raises(InputError, match=rf"is cut off, it promises 4\.0 s and holds {held} s; copy it again"):
            read_audio(cut)
    (tmp_path / "few.wav").write_bytes(data[:-100])
    assert len(read_audio(tmp_path / "few.wav")) > 63_900


@pytest.mark.parametrize("length", [0, 0xFFFF_FFFF, 0x7FFF_FFFF - 44])
def test_a_wav_from_a_pipe_that_does_not_know_its_length_is_heard_whole(tmp_path, length):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(400, 1.0, 16_000), 16_000, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = length.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(read_audio(path)) == 16_000
