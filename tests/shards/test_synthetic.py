"""Synthetic talkers: deterministic people with exact tracks, whose lips follow their speech and who look like faces."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from configs import InputError
from heads.rig import load_rig
from shards.build.lock import locked
from shards.synthetic import make_talker, synthesize, synthetic_video
from shards.synthetic.identity import sample_identity
from shards.synthetic.look.raster import Subdivision, rasterize_mesh
from shards.synthetic.speech.lexicon import Phone, phonemes, sentence
from shards.synthetic.speech.visemes import MouthSolver, mouth_curves
from shards.synthetic.speech.voice import SOUNDS, VoiceStyle, compose, speak
from shards.synthetic.talker import Talker

SIZE = 128


@pytest.fixture(scope="module")
def person() -> Talker:
    return make_talker(8)


@pytest.fixture(scope="module")
def performance(person):
    return person.perform(2.0, 0, SIZE)


@pytest.fixture(scope="module")
def pictures(person, performance):
    frames, mattes = zip(*person.render(performance, 0, 40))
    return np.stack(frames), np.stack(mattes)


def aperture(points: np.ndarray) -> np.ndarray:
    return points[:, 14, 1] - points[:, 13, 1]


# ------------------------------------------------------------------------------------------------------------- voice


def test_every_word_is_made_of_phonemes_that_have_a_sound_and_a_mouth():
    rng = np.random.default_rng(0)
    spoken = {word for _ in range(300) for word in sentence(rng)}
    symbols = {symbol for word in spoken for symbol, _ in phonemes(word)}
    assert len(spoken) > 100
    assert symbols <= set(SOUNDS)
    assert mouth_curves([Phone(s, 0.1 * i, 0.1 * i + 0.1) for i, s in enumerate(sorted(symbols))], 100).shape == (
        100,
        5,
    )


def test_phones_cover_the_whole_time_without_gaps():
    utterance = compose(6.0, np.random.default_rng(3), VoiceStyle())
    assert utterance.phones[0].start == 0.0
    assert utterance.phones[-1].end == 6.0
    assert all(a.end == pytest.approx(b.start) for a, b in zip(utterance.phones, utterance.phones[1:]))


def test_speech_is_loud_in_vowels_and_quiet_in_pauses():
    style, rng = VoiceStyle(), np.random.default_rng(1)
    utterance = compose(6.0, rng, style)
    wave = speak(utterance, style, rng)
    assert wave.shape == (96000,)
    assert wave.dtype == np.float32

    def level(symbols):
        parts = [
            wave[int((p.start + 0.03) * 16000) : int(p.end * 16000)] for p in utterance.phones if p.symbol in symbols
        ]
        return np.sqrt(np.mean(np.concatenate(parts) ** 2))

    assert level({"AA", "AE", "AO", "EY", "AY", "OW"}) > 20 * level({"SIL"})


def test_the_pitch_of_the_voice_is_the_pitch_of_its_style():
    for pitch in (100.0, 200.0):
        rng = np.random.default_rng(0)
        style = VoiceStyle(pitch=pitch, range=0.0)
        vowel = compose(1.0, rng, style).__class__([Phone("AA", 0.0, 1.0)], ["aa"], 1.0)
        wave = speak(vowel, style, rng)[4000:12000]
        spectrum = np.correlate(wave, wave, "full")[len(wave) - 1 :]
        lag = 40 + int(np.argmax(spectrum[40:400]))
        assert 16000 / lag == pytest.approx(pitch, rel=0.25)


def test_a_vowel_has_its_formants():
    rng = np.random.default_rng(0)
    style = VoiceStyle(pitch=110.0, tract=1.0, breath=0.05)

    def band(symbol, low, high):
        wave = speak(compose(1.0, rng, style).__class__([Phone(symbol, 0.0, 1.0)], [], 1.0), style, rng)[4000:12000]
        power = np.abs(np.fft.rfft(wave * np.hanning(len(wave)))) ** 2
        hertz = np.fft.rfftfreq(len(wave), 1 / 16000)
        return power[(hertz > low) & (hertz < high)].sum()

    # IY: first formant 270 Hz, second 2290; AA: 730 and 1090.
    assert band("IY", 2000, 2600) / band("IY", 800, 1300) > 5
    assert band("AA", 800, 1300) / band("AA", 2000, 2600) > 5


# ------------------------------------------------------------------------------------------------------------- mouth


def test_lips_close_for_m_b_p_and_open_for_a():
    phones = [Phone(s, 0.12 * i, 0.12 * i + 0.12) for i, s in enumerate(["AA", "M", "AA", "B", "AE", "P", "AA"])]
    curve = mouth_curves(phones, 84, fps=100.0)[:, 0]
    for i, phone in enumerate(phones):
        value = curve[int((phone.start + phone.end) * 50) - 3]
        assert value < 0.03 if phone.symbol in "MBP" else value > 0.09, (i, phone.symbol, value)


def test_the_mouth_solver_produces_the_aperture_asked_for():
    rig = load_rig()
    shape = sample_identity(3, rig.n_identity).shape
    wanted = np.array([[0.0, 0, 0, 0, 0], [0.1, 0, 0, 0.08, 0], [0.2, 0, 0, 0.16, 0]])
    expression = MouthSolver(rig, shape).expression(wanted)
    points = rig.vertices(torch.from_numpy(shape)[None].expand(3, -1), torch.from_numpy(expression)).numpy()
    assert np.abs(aperture(points) - wanted[:, 0]).max() < 0.02


def test_the_mouth_opens_with_the_sound(person):
    performance = person.perform(8.0, 5, 64)
    opening = aperture(person.landmarks(performance))
    loudness = np.sqrt((performance.audio.reshape(-1, 640) ** 2).mean(1))
    assert np.corrcoef(opening, np.sqrt(loudness))[0, 1] > 0.4


def test_eyes_close_when_they_blink(person):
    performance = person.perform(8.0, 1, 64)
    points = person._vertices(performance.expression, performance.eyelids)
    gap = points[:, 374, 1] - points[:, 386, 1]
    shut = performance.eyelids[:, 0] > 0.8
    assert shut.any()
    assert gap[shut].max() < 0.5 * np.median(gap[performance.eyelids[:, 0] < 0.2])


# ------------------------------------------------------------------------------------------------------------ picture


def test_the_same_seed_gives_the_same_person_speech_and_pixels(pictures):
    rig = load_rig()
    again = Talker(rig, sample_identity(8, rig.n_identity))
    performance = again.perform(2.0, 0, SIZE)
    frame, matte = next(again.render(performance, 7, 8))
    assert np.array_equal(frame, pictures[0][7])
    assert np.array_equal(matte, pictures[1][7])


def test_another_seed_is_another_person_and_another_clip_says_something_else(person, performance):
    assert not np.array_equal(sample_identity(9, 64).shape, sample_identity(8, 64).shape)
    assert person.perform(2.0, 1, SIZE).words != performance.words


def test_the_first_frames_do_not_depend_on_where_rendering_begins(person, performance, pictures):
    frame, _ = next(person.render(performance, 31, 32))
    assert np.array_equal(frame, pictures[0][31])


def test_landmarks_are_the_projected_rig(person, performance):
    rig = load_rig()
    shape = torch.from_numpy(person.identity.shape)[None].expand(len(performance), -1)
    track = (torch.from_numpy(getattr(performance, name)) for name in ("expression", "eyelids", "gaze"))
    points = rig.vertices(shape, *track)[:, :478].numpy()
    camera = np.einsum("tij,tvj->tvi", performance.rotation, points) + performance.translation[:, None]
    pixels = camera @ performance.intrinsics.T
    assert np.abs(pixels[..., :2] / pixels[..., 2:] - person.landmarks(performance)[..., :2]).max() < 0.01


def test_a_face_tracker_finds_the_face_where_the_track_says(person, performance, pictures):
    pytest.importorskip("mediapipe")
    from shards.tracking import detect_landmarks

    shown = slice(0, 40, 8)
    found, valid = detect_landmarks(pictures[0][shown])
    truth = person.landmarks(performance)[:40][shown]
    eyes = np.linalg.norm(truth[:, 468, :2] - truth[:, 473, :2], axis=1)
    assert valid.all()
    error = np.linalg.norm(found[..., :2] - truth[..., :2], axis=-1).mean(1) / eyes
    assert error.max() < 0.08


def test_the_matte_holds_the_face_and_leaves_the_corners(person, performance, pictures):
    mattes = pictures[1]
    landmarks = person.landmarks(performance)[:40]
    inside = landmarks[:, [1, 4, 10, 152, 50, 280], :2].astype(int)
    for matte, points in zip(mattes, inside):
        assert (matte[points[:, 1], points[:, 0]] > 250).all()
    assert mattes[:, :4, :4].max() == 0
    assert mattes[:, :4, -4:].max() == 0


def test_subdivision_keeps_every_vertex_and_rounds_a_sphere():
    corners = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], float)
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
    fine = Subdivision(faces, 6)
    points = fine.points(corners)
    assert np.array_equal(points[:6], corners)
    flat = np.linalg.norm((corners[fine.edges[:, 0]] + corners[fine.edges[:, 1]]) / 2, axis=1)
    assert (np.linalg.norm(points[6:], axis=1) > flat + 0.1).all()


def test_the_nearest_triangle_wins():
    points = np.array([[0, 0, 2], [8, 0, 2], [0, 8, 2], [0, 0, 1], [8, 0, 1], [0, 8, 3]], float)
    depth, triangle, _ = rasterize_mesh(points, np.array([[0, 1, 2], [3, 4, 5]]), 8, 8)
    assert triangle[0, 0] == 1
    assert triangle[5, 1] == 0
    assert triangle[7, 7] == -1
    assert np.isinf(depth[7, 7])


# ------------------------------------------------------------------------------------------------------------ dataset


def test_a_dataset_of_talkers_verifies_and_grows(tmp_path):
    from shards.check.verify import verify
    from shards.read.dataset import open_dataset

    first = synthesize(1, 2.2, 0, tmp_path / "talkers", size=64)
    assert (first["identities"], first["segments"], first["frames"]) == (1, 2, 55)
    second = synthesize(2, 2.2, 0, tmp_path / "talkers", size=64)
    assert (second["identities"], second["frames"]) == (2, 110)
    checked = verify(str(tmp_path / "talkers"))
    assert checked["ok"], checked["broken"]
    dataset = open_dataset(str(tmp_path / "talkers"))
    sample = dataset.read("synthetic-0000/talk0-00001")
    assert sample.meta["licence"] == "CC0-1.0"
    assert "no such person" in sample.meta["consent"]
    assert sample.length == 5
    assert len(sample.audio) == 5 * 640


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_a_bit(tmp_path):
    from shards.read.dataset import open_dataset

    for workers in (1, 2):
        synthesize(2, 0.4, 3, tmp_path / str(workers), size=32, workers=workers)
    alone, together = (open_dataset(str(tmp_path / w)).fingerprint for w in ("1", "2"))
    assert alone == together


def test_a_talkers_video_has_its_frames_and_its_sound(tmp_path):
    from shards.media.sound import read_audio

    result = synthetic_video(8, 1.2, tmp_path / "v.mp4", size=64)
    assert result["frames"] == 30
    sound = read_audio(tmp_path / "v.mp4")
    truth = make_talker(8).perform(1.2, 0, 64).audio
    length = min(len(sound), len(truth))
    assert abs(len(sound) - len(truth)) <= 1024
    assert np.corrcoef(sound[:length], truth[:length])[0, 1] > 0.9


@pytest.mark.parametrize(
    ("change", "named"),
    [({"identities": 0}, "--identities 0"), ({"seconds": 0.0}, "--seconds 0"), ({"size": 65}, "--size 65"),
     ({"workers": 0}, "--workers 0"), ({"seed": -1}, "--seed -1")],
)  # fmt: skip
def test_numbers_out_of_range_are_refused_by_name(tmp_path, change, named):
    arguments = {"identities": 1, "seconds": 1.0, "seed": 0, "out": tmp_path / "x", **change}
    with pytest.raises(InputError, match=named):
        synthesize(**arguments)
    assert not (tmp_path / "x").exists()


def test_a_dataset_that_another_process_writes_is_left_alone(tmp_path):
    with locked(str(tmp_path / "d")), pytest.raises(InputError, match="another build is writing here"):
        synthesize(1, 0.2, 0, tmp_path / "d", size=32)
    assert not (tmp_path / "d" / "dataset.json").exists()


def test_a_video_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the video"):
        synthetic_video(8, 0.4, tmp_path / "file" / "v.mp4", size=64)
