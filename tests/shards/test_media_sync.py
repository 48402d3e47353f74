"""Sound and picture in step whatever the container and codec: a flash and a chirp at the same moments come out so."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import soundfile

from configs import InputError
from shards.media.decode import read_video
from shards.media.probe import video_info
from shards.media.sound import read_audio
from tests.support.media import Kind, chirp_times, chirps, flash_numbers, write_clip

FLASHES = [12, 50, 77]
FRAGMENTED = {"movflags": "frag_keyframe+empty_moov"}
CMAF = {"movflags": "cmaf+frag_keyframe+empty_moov+delay_moov"}
REORDERED, FAST = {"bf": "2", "g": "25"}, {"deadline": "realtime", "cpu-used": "8"}
KINDS = [
    Kind("aac.mp4", pictures=REORDERED),
    Kind("aac-44100.mp4", rate=44_100),
    Kind("mp3.mp4", sound="libmp3lame"),
    Kind("opus.mp4", sound="libopus"),
    Kind("fragmented.mp4", options=FRAGMENTED, pictures=REORDERED),
    Kind("cmaf.mp4", options=CMAF, pictures={"bf": "0"}),
    Kind("aac.mkv"),
    Kind("mp3.mkv", sound="libmp3lame"),
    Kind("opus.mkv", sound="libopus"),
    Kind("vorbis.mkv", sound="vorbis", channels=2),
    Kind("ac3.mkv", sound="ac3"),
    Kind("flac.mkv", sound="flac"),
    Kind("opus.webm", video="libvpx", sound="libopus", pictures=FAST),
    Kind("aac.ts", pictures=REORDERED),
    Kind("mp2.ts", video="mpeg2video", sound="mp2"),
    Kind("mp2.mpg", video="mpeg1video", sound="mp2", pictures={"bf": "2"}),
    Kind("ac3.vob", video="mpeg2video", sound="ac3", muxer="vob", pictures={"bf": "2"}),
    Kind("aac.flv", rate=44_100),
    Kind("alac.mov", sound="alac"),
    Kind("pcm.mov", sound="pcm_s16le"),
    Kind("pcm.avi", video="mpeg4", sound="pcm_s16le"),
]
# PCM in MOV and all sound in AVI have no stamps of their own: nothing in the file tells of a hole.
STAMPED = [kind for kind in KINDS if not kind.name.startswith("pcm")]


def name_of(value: object) -> str | None:
    return value.name if isinstance(value, Kind) else None


def sync_errors(path, flashes=FLASHES) -> np.ndarray:
    """How much later than its flash each chirp comes, s."""
    assert flash_numbers(read_video(path)) == flashes
    times = [k / 25 for k in flashes]
    return np.array(chirp_times(read_audio(path), times)) - times


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_sound_lies_within_a_millisecond_of_its_stamps(tmp_path, kind):
    assert np.abs(sync_errors(write_clip(tmp_path, kind, FLASHES))).max() <= 0.001


@pytest.mark.parametrize("kind", STAMPED, ids=name_of)
@pytest.mark.parametrize("length", [0.08, 0.6, 2.0])
def test_a_hole_in_the_sound_becomes_silence_and_what_follows_stays_in_step(tmp_path, kind, length):
    path = write_clip(tmp_path, replace(kind, hole=(1.2, length)), [12, 95, 140], 6.0)
    assert np.abs(sync_errors(path, [12, 95, 140])).max() <= 0.001
    sound = read_audio(path)
    inside = sound[round(1.26 * 16_000) : round((1.2 + length - 0.02) * 16_000)]  # past the codec's own ring-out
    assert np.abs(inside).max(initial=0.0) < 0.01


@pytest.mark.parametrize("kind", [k for k in STAMPED if k.name != "fragmented.mp4"], ids=name_of)
@pytest.mark.parametrize("delay", [0.31, -0.25])
def test_streams_that_start_apart_stay_in_step(tmp_path, kind, delay):
    path = write_clip(tmp_path, replace(kind, delay=delay), FLASHES)
    assert np.abs(sync_errors(path)).max() <= 0.00105  # Matroska: both stamps are rounded to 1 ms
    assert video_info(path).frames == 100


def test_a_fragmented_file_whose_sound_starts_early_is_read_by_its_stamps(tmp_path):
    """Without an edit list the first picture is made longer: all others lie by up to half a frame off the grid."""
    path = write_clip(tmp_path, Kind("a.mp4", options=FRAGMENTED, delay=-0.25), FLASHES)
    seen = flash_numbers(read_video(path))
    heard = chirp_times(read_audio(path), [k / 25 for k in seen])
    assert np.abs(np.array(heard) - np.array(seen) / 25).max() <= 0.021


def test_stamps_that_jitter_by_some_milliseconds_neither_cut_nor_fill(tmp_path):
    """As of phones that write the clock's time on every block."""
    rng = np.random.default_rng(0)

    def shake(packet, stream):
        if stream.type == "audio" and packet.pts > 5 * 1024 and rng.random() < 0.3:
            late = round(rng.uniform(0.004, 0.012) / float(packet.time_base))
            packet.pts, packet.dts = packet.pts + late, packet.dts + late
        return packet

    plain = read_audio(write_clip(tmp_path, Kind("plain.mkv"), FLASHES))
    shaken = read_audio(write_clip(tmp_path, Kind("shaken.mkv"), FLASHES, packets=shake))
    assert len(plain) == len(shaken)
    assert np.abs(plain - shaken).max() < 1e-6


def test_a_clock_that_runs_slow_is_followed(tmp_path):
    """Stamps that say that each block lasts 0.2 % longer: 8 ms in 4 s."""

    def slow(packet, stream):
        if stream.type == "audio":
            packet.pts = packet.dts = round(packet.pts * 1.002)
        return packet

    kind = Kind("slow.mkv", sound="pcm_s16le")
    path = write_clip(tmp_path, kind, [], 4.0, packets=slow)
    assert len(read_audio(path)) / 16_000 == pytest.approx(4.008, abs=0.004)


def test_music_files_without_pictures_begin_with_their_sound(tmp_path):
    sound = chirps([0.5, 1.5], 2.0, 48_000)[0]
    for suffix in ("flac", "wav", "ogg"):
        soundfile.write(tmp_path / f"a.{suffix}", sound, 48_000)
        found = chirp_times(read_audio(tmp_path / f"a.{suffix}"), [0.5, 1.5])
        assert np.abs(np.array(found) - [0.5, 1.5]).max() < 1e-3


def test_the_cover_of_a_music_file_is_no_video(tmp_path):
    import av

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        samples = chirps([0.5], 1.0, 48_000)
        for at in range(0, samples.shape[1], 1024):
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, at : at + 1024]), "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = 48_000, at, Fraction(1, 48_000)
            container.mux(sound.encode(block))
        container.mux(cover.encode(None))
        container.mux(sound.encode(None))
    assert chirp_times(read_audio(path), [0.5])[0] == pytest.approx(0.5, abs=1e-3)
    with pytest.raises(InputError, match="no video stream"):
        video_info(path)


@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_a_part_read_by_seeking_is_the_part_of_the_whole(tmp_path, kind):
    path = write_clip(tmp_path, kind, FLASHES)
    whole = list(read_video(path))
    assert video_info(path).frames == len(whole)
    for start in (12, 49, 76, 90):
        part = list(read_video(path, start=start / 25, seconds=0.12))
        assert np.array_equal(np.stack(part), np.stack(whole[start : start + 3])), start
