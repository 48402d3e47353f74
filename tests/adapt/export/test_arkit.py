"""ARKit weights: the map keeps what talking needs, files keep the weights, and bad files are refused in a sentence."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from adapt.drivers.arkit import NAMES, arkit_map
from adapt.drivers.blendshapes import (
    BlendshapeDriver,
    Blendshapes,
    read_blendshapes,
    write_blendshapes,
)
from configs import InputError
from heads.rig import load_rig
from heads.rig.controls import measures


@pytest.fixture(scope="module")
def rig():
    return load_rig("mediapipe")


@pytest.fixture(scope="module")
def mapping(rig):
    return arkit_map(rig)


@pytest.fixture(scope="module")
def performance():
    """Six seconds of a generated person who talks."""
    from shards.synthetic.generate import make_talker

    return make_talker(3).perform(6, 0, 256)


def shape(name: str, amount: float = 1.0) -> np.ndarray:
    """Weights ``[1, 52]`` of one shape."""
    weights = np.zeros((1, 52), np.float32)
    weights[0, NAMES.index(name)] = amount
    return weights


def test_there_are_52_names_each_once():
    assert len(NAMES) == len(set(NAMES)) == 52


def test_a_talking_clip_keeps_its_mouth_through_the_weights(rig, mapping, performance):
    weights = mapping.weights(performance.expression, performance.eyelids, performance.gaze)
    assert weights.shape == (len(performance), 52)
    assert 0 <= weights.min() <= weights.max() <= 1
    back = mapping.face(weights)
    effect = measures(rig.expression.numpy())
    for measure, least in (("gap", 0.99), ("width", 0.98)):
        before, after = performance.expression @ effect[measure], back["expression"] @ effect[measure]
        assert np.corrcoef(before, after)[0, 1] >= least
        assert 0.9 <= np.polyfit(before, after, 1)[0] <= 1.1
    landmarks = rig.expression[:, :478].numpy()
    left = np.einsum("tk,knc->tnc", performance.expression - back["expression"], landmarks)
    moved = np.einsum("tk,knc->tnc", performance.expression, landmarks)
    assert np.sqrt((left**2).mean()) < 0.15 * np.sqrt((moved**2).mean())


def test_eyelids_and_gaze_come_back_exactly(mapping, performance):
    back = mapping.face(mapping.weights(performance.expression, performance.eyelids, performance.gaze))
    assert np.abs(back["eyelids"] - performance.eyelids).max() < 1e-6
    assert np.abs(back["gaze"] - performance.gaze).max() < 1e-6


def test_shapes_move_the_face_as_their_names_say(rig, mapping):
    basis = rig.expression.numpy()

    def effect(name):
        return {
            key: float(value @ mapping.face(shape(name))["expression"][0]) for key, value in measures(basis).items()
        }

    assert effect("jawOpen")["gap"] > 0.4
    assert effect("mouthClose")["gap"] < -0.4
    assert abs(sum(effect(name)["gap"] for name in ("jawOpen", "mouthClose"))) < 0.1
    assert effect("mouthPucker")["width"] < -0.2
    assert effect("browInnerUp")["brows"] < -0.03
    smiles = [effect(f"mouthSmile{side}") for side in ("Left", "Right")]
    assert all(smile["width"] > 0.08 and smile["corners"] < -0.03 for smile in smiles)
    assert np.allclose([smile["width"] for smile in smiles], smiles[0]["width"], rtol=0.1)
    left = mapping.face(shape("mouthSmileLeft"))["expression"][0] @ basis[:, [291, 61], 0]
    assert left[0] > 3 * abs(left[1])  # the person's left corner is the one with the larger x


def test_eyes_turn_and_close_as_their_names_say(mapping):
    assert mapping.face(shape("eyeBlinkLeft"))["eyelids"][0].tolist() == [1, 0]
    assert mapping.face(shape("eyeWideRight"))["eyelids"][0, 1] < 0
    assert mapping.face(shape("eyeLookOutLeft"))["gaze"][0, 0, 0] > 0.3  # the person's left is +x
    assert mapping.face(shape("eyeLookOutRight"))["gaze"][0, 1, 0] < -0.3
    assert mapping.face(shape("eyeLookUpLeft"))["gaze"][0, 0, 1] < -0.3


def test_every_shape_does_some_of_what_it_asks_for_and_the_jaw_nearly_all(mapping):
    errors = mapping.errors()
    assert max(errors.values()) < 0.75
    assert errors["jawOpen"] < 0.1
    silent = [name for i, name in enumerate(NAMES) if not mapping.expression[i].any()]
    assert silent == [name for name in NAMES if name[:7] in ("eyeBlin", "eyeLook", "eyeWide")] + ["tongueOut"]


def test_a_rig_without_the_landmarks_is_refused(rig):
    with pytest.raises(InputError, match="rig flame has no FaceMesh landmarks"):
        arkit_map(SimpleNamespace(name="flame", n_landmarks=0, expression=rig.expression))


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_talking_clip_survives_its_file(suffix, rig, mapping, performance, tmp_path):
    weights = mapping.weights(performance.expression, performance.eyelids, performance.gaze)
    path = tmp_path / f"talk{suffix}"
    write_blendshapes(path, weights)
    back = read_blendshapes(path).at_rate(25)
    assert back.shape == weights.shape
    gap = measures(rig.expression.numpy())["gap"]
    before, after = performance.expression @ gap, mapping.face(back)["expression"] @ gap
    assert np.corrcoef(before, after)[0, 1] >= 0.95
    assert np.abs(back - weights).max() <= (1e-6 if suffix == ".json" else 0.35)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_csv_is_laid_out_as_live_link_face_does(tmp_path):
    path = tmp_path / "talk.csv"
    write_blendshapes(path, np.full((50, 52), 0.25, np.float32))
    lines = path.read_text().splitlines()
    header, first, last = (lines[i].split(",") for i in (0, 1, -1))
    assert header[:4] == ["Timecode", "BlendShapeCount", "EyeBlinkLeft", "EyeLookDownLeft"]
    assert header[-1] == "RightEyeRoll"
    assert len(header) == len(first) == 63
    assert (first[0], first[1], first[2]) == ("00:00:00:00.000", "61", "0.250000")
    assert (len(lines), last[0]) == (121, "00:00:01:59.000")


def test_a_lam_document_is_read(tmp_path):
    names = list(reversed(NAMES))
    frames = [{"weights": [i / 40] * 52, "time": i / 30, "rotation": []} for i in range(30)]
    document = {"names": names, "metadata": {"fps": 30, "frame_count": 30, "blendshape_names": names}, "frames": frames}
    path = tmp_path / "lam.json"
    path.write_text(json.dumps(document))
    back = read_blendshapes(path)
    assert np.allclose(back.weights[10], 0.25)
    assert back.at_rate(25).shape == (25, 52)


def test_frames_that_the_recorder_dropped_leave_no_shift(tmp_path):
    path = tmp_path / "dropped.csv"
    kept = [*range(30), *range(60, 180)]
    rows = [f"10:00:{i // 60:02d}:{i % 60:02d}.500,1,{i / 180:.6f}" for i in kept]
    path.write_text("\n".join(["Timecode,BlendShapeCount,JawOpen", *rows]))
    jaw = read_blendshapes(path).at_rate(25)[:, NAMES.index("jawOpen")]
    assert len(jaw) == 75
    assert np.allclose(jaw, ((np.arange(75) + 0.5) / 25 * 60 - 0.5) / 180, atol=0.004)


def test_the_rate_of_a_timecode_is_told_by_its_frames(tmp_path):
    path = tmp_path / "film.csv"
    rows = [f"00:00:{i // 24:02d}:{i % 24:02d},1,0.5" for i in range(96)]
    path.write_text("\n".join(["Timecode,BlendShapeCount,JawOpen", *rows]))
    assert len(read_blendshapes(path).at_rate(25)) == 100


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", "", r"expected a \.csv of Live Link Face or a \.json"),
        ("a.csv", "Timecode,JawOpen\n", "1 lines; expected a header and a line per frame"),
        ("a.csv", "JawOpen\nwide\n", "line 2, column JawOpen: 'wide' is not a number"),
        ("a.csv", "JawOpen,MouthClose\n0.1\n", "line 2: 1 cells, the header has 2"),
        ("a.csv", "JawOpn\n0.1\n", "'JawOpn' is none of the 52 ARKit names; did you mean 'jawOpen'"),
        ("a.csv", "JawOpen,jawopen\n0.1,0.2\n", "'jawopen' appears twice"),
        ("a.csv", "JawOpen\n0.1\n55\n", "JawOpen is 55 in frame 1; expected weights from 0 to 1"),
        ("a.csv", "JawOpen\nnan\n", "JawOpen is nan in frame 0"),
        ("a.csv", "HeadYaw\n0.1\n", "none of the 52 ARKit names, such as jawOpen"),
        ("a.csv", "Timecode,JawOpen\n1.5,0\n", r"line 2: timecode '1\.5'; expected HH:MM:SS:FF"),
        ("a.csv", "Timecode,JawOpen\n0:0:0:5,0\n0:0:0:4,0\n", "line 3: its timecode is not later"),
        ("a.json", "{", "no JSON"),
        ("a.json", "[]", "expected the keys facsNames and weightMat"),
        ("a.json", '{"facsNames": ["jawOpen"], "weightMat": [[1, 2]]}', r"shape \[1, 2\], expected \[frames, 1\]"),
        ("a.json", '{"facsNames": ["jawOpen"], "weightMat": [[1], [1, 2]]}', "rows of different lengths"),
        ("a.json", '{"facsNames": ["jawOpen"], "weightMat": [[1]], "exportFps": 0}', "0 frames a second"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(name, text, sentence, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=sentence) as error:
        read_blendshapes(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_an_absent_file_and_a_wrong_output_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_blendshapes(tmp_path / "absent.csv")
    with pytest.raises(InputError, match=r"ends in \.csv or \.json"):
        write_blendshapes(tmp_path / "a.xml", np.zeros((2, 52)))


def test_a_driver_gives_row_t_for_frame_t_and_holds_the_last(mapping):
    weights = np.zeros((10, 52), np.float32)
    weights[:, NAMES.index("jawOpen")] = np.linspace(0, 1, 10)
    driver = BlendshapeDriver(mapping, Blendshapes(weights, (np.arange(10) + 0.5) / 25))
    stream = driver.stream()
    parts = [stream.push(np.zeros((count, 40))) for count in (3, 0, 7, 5)]
    whole = np.concatenate([part["expression"] for part in parts])
    assert np.allclose(whole[:10], driver.face["expression"])
    assert np.allclose(whole[10:], driver.face["expression"][-1])
    assert {name for part in parts for name in part} == {"expression", "eyelids", "gaze"}
