"""The watermark: invisible, the same on every frame, found after conversions, not found where it is not."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from adapt.marking.code import (
    KEY_VARIABLE,
    PUBLIC_KEY,
    code_of,
    key_id,
    payload_in,
    payload_name,
    payload_of,
    symbols_of,
    watermark_key,
)
from adapt.marking.search import (
    ANYWHERE,
    AS_MADE,
    BY_ALL,
    BY_ORIGIN,
    FALSE_ALARM,
    TURNED,
    Finding,
    Search,
    flattened,
    working_size,
)
from adapt.marking.spectra import WHOLE_BANDS, Spectra, unit
from adapt.marking.watermark import COLOURS, Watermark, pattern
from configs import InputError
from heads.measures.image import psnr

PAYLOAD = 0x89ABCDEF
CLIPS = Path(__file__).parents[4] / "shared" / "clips"


def scene(seed: int = 0, side: int = 512) -> np.ndarray:
    """A picture with flat ground, soft shapes, edges and grain, uint8 ``[side, side, 3]``."""
    random = np.random.default_rng(seed)
    small = random.uniform(40, 210, (side // 64, side // 64, 3)).astype(np.uint8)
    soft = Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)
    edges = Image.fromarray(random.integers(0, 255, (side // 32, side // 32, 3), np.uint8))
    edges = edges.resize((side, side), Image.Resampling.NEAREST).filter(ImageFilter.GaussianBlur(1))
    picture = np.asarray(soft, np.float32)
    y, x = np.mgrid[:side, :side] / side
    shape = ((x - 0.5) ** 2 + (y - 0.55) ** 2 < 0.09)[..., None]
    picture = np.where(shape, 0.5 * picture + 0.5 * np.asarray(edges, np.float32), picture)
    picture[: side // 5] = 150
    return np.clip(picture + random.normal(0, 1.5, picture.shape), 0, 255).astype(np.uint8)


def searched(frames: list[np.ndarray], key: str | None = None) -> Finding:
    search = Search(*frames[0].shape[:2], key=key)
    rows, columns = working_size(*frames[0].shape[:2])
    for frame in frames:
        image = Image.fromarray(frame[..., :3]).convert("L").resize((columns, rows), Image.Resampling.BOX)
        search.add(np.asarray(image))
    return search.finding()


# --- the code -------------------------------------------------------------------------------------------------------


def test_the_public_code_never_changes() -> None:
    code = code_of(watermark_key(PUBLIC_KEY))
    rounded = np.rint(code.phase * 1e6).astype("<i8")
    text = code.kx.astype("<i8").tobytes() + code.ky.astype("<i8").tobytes() + rounded.tobytes()
    digest = hashlib.sha256(text + code.channel.astype("<i8").tobytes()).hexdigest()
    assert digest == "b7a11544320b5154e6c3be848ff7b69662ead9193b95c4ebe8d1560e2d497264", (
        "videos marked before this change would no longer be found"
    )


def test_every_channel_has_its_share_of_low_and_high_frequencies() -> None:
    code = code_of(b"some other key")
    radius = np.hypot(code.kx, code.ky)
    for channel in range(5):
        chosen = radius[code.channel == channel]
        assert len(chosen) / len(radius) == pytest.approx(8 / 12 if channel == 0 else 1 / 12, abs=0.002)
        assert chosen.mean() == pytest.approx(radius.mean(), rel=0.01)


@pytest.mark.parametrize("payload", [0, 1, PAYLOAD, 2**32 - 1])
def test_symbols_spell_the_payload_for_their_own_key_only(payload: int) -> None:
    key, other = watermark_key(PUBLIC_KEY), watermark_key("another key")
    symbols = symbols_of(key, payload)
    assert payload_in(key, symbols) == payload
    assert payload_in(other, symbols) is None
    assert payload_in(key, [symbols[0] ^ 1, *symbols[1:]]) is None


def test_a_payload_is_the_start_of_the_avatars_hash() -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    assert payload_name(payload_of(digest)) == digest[:8]
    with pytest.raises(ValueError, match="hash"):
        payload_of("abc")


def test_the_key_comes_from_the_argument_then_the_environment_then_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    public = watermark_key()
    monkeypatch.setenv(KEY_VARIABLE, "from the environment")
    assert watermark_key() == b"from the environment"
    assert watermark_key("as an argument") == b"as an argument"
    assert key_id(public) != key_id(watermark_key())
    monkeypatch.setenv(KEY_VARIABLE, "short")
    with pytest.raises(InputError, match="at least 8") as error:
        watermark_key()
    assert "short" not in str(error.value).replace("shortest", "")


# --- the mark -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [256, 512, 720])
def test_the_mark_stays_above_42_db(side: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8)
    mark = Watermark(PAYLOAD)
    for frame in (scene(side=side), noise, np.full((side, side, 3), 128, np.uint8)):
        assert psnr(frame / np.float32(255), mark.mark(frame) / np.float32(255)) >= 42


def test_flat_ground_is_changed_by_three_levels_at_most_and_dark_ground_by_less() -> None:
    mark = Watermark(PAYLOAD)
    changes = {}
    for level in (8, 128):
        frame = np.full((512, 512, 3), level, np.uint8)
        changes[level] = mark.mark(frame).astype(int) - level
    assert np.abs(changes[128]).max() <= 4
    assert changes[8].std() < 0.75 * changes[128].std()
    assert abs(changes[128].mean()) < 0.05


def test_a_still_scene_does_not_flicker() -> None:
    frame = scene()
    mark, again = Watermark(PAYLOAD), Watermark(PAYLOAD)
    first = mark.mark(frame)
    mark.mark(scene(1))
    assert (mark.mark(frame) == first).all()
    assert (again.mark(frame) == first).all()


def test_the_colours_change_together_and_alpha_stays() -> None:
    frame = np.dstack([scene().clip(20, 230), np.arange(512 * 512).reshape(512, 512).astype(np.uint8)])
    change = Watermark(PAYLOAD).mark(frame).astype(int) - frame
    red, green, blue = (change[..., i].astype(float) for i in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    for colour, share in zip((red, green, blue), COLOURS):
        assert np.abs(colour - share * luma).max() < 1.1
    assert (change[..., 3] == 0).all()


def test_a_busy_frame_keeps_its_mark_on_flat_ground() -> None:
    """Where the change would be too large, only its strongest places give way."""
    frame = scene()
    frame[200:] = np.random.default_rng(3).integers(0, 256, frame[200:].shape, np.uint8)
    flat = np.full_like(frame, 150)
    changes = [Watermark(PAYLOAD).mark(f)[:80].astype(int) - f[:80] for f in (flat, frame)]
    assert changes[1].std() >= 0.9 * changes[0].std()


@pytest.mark.parametrize("side", [256, 512])
def test_the_mark_on_flat_ground_has_no_grain(side: int) -> None:
    """Of what changes on flat ground little is finer than a codec's blocks: the eye sees no grain."""
    waves = pattern(watermark_key(PUBLIC_KEY), PAYLOAD, side, side)
    power = np.abs(np.fft.rfft2(waves)) ** 2
    across = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    assert power[across > 1 / 7].sum() < 0.01 * power.sum()


def test_the_pattern_repeats_every_half_of_the_shorter_side() -> None:
    waves = pattern(watermark_key(PUBLIC_KEY), PAYLOAD, 200, 300)
    assert np.abs(waves[:100] - waves[100:]).max() < 1e-3
    assert np.abs(waves[:, :200] - waves[:, 100:]).max() < 1e-3
    assert waves.std() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("frame", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)])
def test_frames_of_another_kind_are_refused(frame: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        Watermark(PAYLOAD).mark(frame)


# --- found ----------------------------------------------------------------------------------------------------------


def as_jpeg(frame: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=75)
    return np.asarray(Image.open(buffer))


def scaled(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def bright(frame: np.ndarray, gain: float) -> np.ndarray:
    return np.clip(frame * gain, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda f: f,
    "JPEG q75": as_jpeg,
    "half": lambda f: scaled(f, 256, 256),
    "double": lambda f: scaled(f, 1024, 1024),
    "cropped": lambda f: f[51:-51, 51:-51],
    "cropped off centre and scaled": lambda f: scaled(f[20:-70, 5:-85], 400, 400),
    "a border": lambda f: np.pad(f, ((40, 40), (40, 40), (0, 0))),
    "brighter": lambda f: bright(f, 1.1),
    "darker": lambda f: bright(f, 0.9),
    "grey": lambda f: np.repeat(np.asarray(Image.fromarray(f).convert("L"))[..., None], 3, 2),
    "squeezed to 16:9": lambda f: scaled(f, 640, 360),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_picture_tells_its_avatar_after(change: str) -> None:
    finding = searched([CHANGES[change](Watermark(PAYLOAD).mark(scene(3)))])
    assert finding.found
    assert finding.payload == PAYLOAD
    assert not finding.mirrored
    assert finding.confidence > 1 - FALSE_ALARM


def test_a_mirrored_picture_is_found_and_said_to_be_mirrored() -> None:
    finding = searched([Watermark(PAYLOAD).mark(scene(3))[:, ::-1]])
    assert finding.payload == PAYLOAD
    assert finding.mirrored


def test_a_mirrored_picture_of_another_shape_is_found_whole() -> None:
    finding = searched([Watermark(PAYLOAD).mark(scene(3)[:, 40:420])[:, ::-1]])
    assert finding.payload == PAYLOAD
    assert finding.mirrored
    assert finding.tile == pytest.approx(0.5)


def test_two_pictures_side_by_side_are_found() -> None:
    frame = np.concatenate([scene(3), scene(4)], 1)
    assert searched([Watermark(PAYLOAD).mark(frame)]).payload == PAYLOAD


def test_a_crop_tells_how_much_of_the_picture_is_left() -> None:
    marked = Watermark(PAYLOAD).mark(scene(3))
    assert searched([marked]).tile == pytest.approx(0.5, rel=0.01)
    assert searched([marked[51:-51, 51:-51]]).tile == pytest.approx(0.5 * 512 / 410, rel=0.01)


@pytest.mark.parametrize(("codec", "quality"), [("libx264", "28"), ("libvpx-vp9", "36")])
def test_a_second_of_video_tells_its_avatar_after_a_codec(tmp_path: Path, codec: str, quality: str) -> None:
    av = pytest.importorskip("av")
    ground, mark = scene(5), Watermark(PAYLOAD)
    path = tmp_path / ("a.webm" if "vpx" in codec else "a.mp4")
    options = {"crf": quality, "b:v": "0", "cpu-used": "8", "deadline": "realtime", "preset": "veryfast"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 512, 512, "yuv420p"
        for i in range(16):
            frame = ground.copy()
            frame[200:400, 150 + 4 * i : 350 + 4 * i] = ground[200:400, 150:350]
            picture = av.VideoFrame.from_ndarray(mark.mark(frame), format="rgb24")
            picture.pts, picture.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert searched(frames).payload == PAYLOAD


# --- not found ------------------------------------------------------------------------------------------------------


def test_a_bound_is_split_over_the_searches_and_judgements() -> None:
    assert pytest.approx(1) == AS_MADE + TURNED + ANYWHERE
    assert pytest.approx(1) == BY_ORIGIN + BY_ALL


def test_a_weak_mark_is_found_before_its_avatar_can_be_read() -> None:
    """No avatar is better than a wrong one."""
    random = np.random.default_rng(5)
    frame = scene(3, side=256)
    marked = Watermark(PAYLOAD).mark(frame)
    weak = [0.25 * marked + 0.75 * frame + random.normal(0, 12, frame.shape) for _ in range(20)]
    finding = searched([np.clip(f, 0, 255).astype(np.uint8) for f in weak])
    assert finding.found
    assert finding.payload in (None, PAYLOAD)


def test_magnitudes_between_the_waves_tell_the_picture_from_the_mark() -> None:
    """A grating's waves count for little: its magnitude reaches to the half cycles beside them, the mark's does not."""
    y, x = np.mgrid[:256, :256]
    grating = 40 * np.sin(2 * np.pi * (x * 10.3 + y * 6.2) / 128)
    mark = pattern(watermark_key(PUBLIC_KEY), PAYLOAD, 256, 256)
    spectra = Spectra((grating + mark).astype(np.float32), code_of(watermark_key(PUBLIC_KEY)))
    weight = np.abs(spectra.close_agreement(128, 128, mirrored=False))
    beside = np.hypot(spectra.code.kx - 10, spectra.code.ky - 6) < 1.5
    others = (np.hypot(spectra.code.kx - 10, spectra.code.ky - 6) > 8) & (spectra.shares[WHOLE_BANDS[0]] == 1)
    assert weight[beside].mean() < 0.6 * weight[others].mean()


def test_another_key_sees_nothing() -> None:
    marked = Watermark(PAYLOAD, key="first secret key").mark(scene(3))
    assert searched([marked], key="first secret key").payload == PAYLOAD
    other = searched([marked], key="second secret key")
    assert not other.found
    assert other.payload is None
    assert other.confidence == 0


@pytest.mark.parametrize("seed", range(6))
def test_pictures_without_a_mark_stay_far_from_being_found(seed: int) -> None:
    finding = searched([scene(seed)])
    assert not finding.found
    assert finding.log_bound > math.log(FALSE_ALARM) / 2


@pytest.mark.parametrize("shape", [(40, 40), (300, 300), (9, 900)])
def test_even_or_tiny_pictures_are_searched_without_a_find(shape: tuple[int, int]) -> None:
    assert not searched([np.full((*shape, 3), 77, np.uint8)]).found


def test_no_frame_is_no_find() -> None:
    assert Search(512, 512).finding() == Finding()


@pytest.mark.parametrize("weights", ["of the same length", "between"])
def test_scores_without_a_mark_are_standard_normal_over_keys(weights: str) -> None:
    """The bound's premise: at a fixed place, for a fixed picture, the score over keys has variance 1 and thin tails."""
    image = flattened(np.asarray(Image.fromarray(scene(2)).convert("L").resize((256, 256)), np.float32))
    scores = []
    for number in range(400):
        spectra = Spectra(image, code_of(f"key number {number}".encode()))
        if weights == "between":
            agreement = spectra.close_agreement(128, 128, mirrored=False) * spectra.shares[WHOLE_BANDS[0]]
        else:
            agreement = spectra.agreement(spectra.table(128, 128), mirrored=False)
        scores.append(float(agreement.real.sum()) * unit(agreement))
    assert abs(np.mean(scores)) < 0.2
    assert np.std(scores) == pytest.approx(1, abs=0.12)
    for limit in (1.0, 2.0, 3.0):
        assert np.mean(np.array(scores) > limit) <= math.exp(-(limit**2) / 2)


@pytest.mark.clips
def test_a_real_clip_keeps_its_mark_and_has_none_before() -> None:
    av = pytest.importorskip("av")
    path = CLIPS / "may.mp4"
    if not path.is_file():
        pytest.skip("the real clips are not beside the project")
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame, _ in zip(container.decode(video=0), range(25))]
    assert not searched(frames).found
    mark = Watermark(PAYLOAD)
    assert searched([as_jpeg(mark.mark(frame)) for frame in frames]).payload == PAYLOAD
