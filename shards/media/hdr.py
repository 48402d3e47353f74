"""Tone mapping: high dynamic range and wide gamut to the BT.709 colours that the rest of the project uses.

PQ (SMPTE ST 2084) and HLG (ARIB STD-B67, ITU-R BT.2100) are converted to display light; diffuse white is scaled to 1,
primaries are converted to BT.709, highlights are rolled off, and the result is encoded for a BT.1886 display (gamma 2.4).
The whole map is one look-up table that FFmpeg applies.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shards.media.container import open_input, picture_stream
from shards.media.memo import once_per_file

if TYPE_CHECKING:
    from av import VideoFrame

PQ, HLG = 16, 18  # AVCOL_TRC_*
WIDE = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # AVCOL_PRI_* wider than BT.709
# Graphics white of ITU-R BT.2408 in nits; programmes made from SDR without a lift have 100.
WHITE, LEAST_WHITE = 203.0, 100.0
UNLIFTED = (115.0, 150.0)  # nits of the brightest pixels up to which white is at 100, and from which it is at 203
HLG_PEAK = 1000.0  # nits of the display that HLG's system gamma of 1.2 is for
GAMMA = 2.4  # ITU-R BT.1886
KNEE = 0.75  # share of diffuse white from which highlights are rolled off
GRID = 33  # entries along a side of the table: at most one level of 255 off the exact map
LOOK_WIDTH = 96  # px, width to which pictures are scaled to measure white and peak
LOOKS = 5  # pictures over the length of a video that white and peak are measured on

# Linear RGB to linear BT.709 RGB, both with D65 (ITU-R BT.2087; Display P3 and DCI-P3 primaries, white taken as D65).
_FROM_2020 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]]
)
_FROM_P3 = np.array([[1.224940, -0.224940, 0.0], [-0.042057, 1.042057, 0.0], [-0.019638, -0.078636, 1.098274]])


class Range(NamedTuple):
    """Diffuse white and the brightest light of a video, nits."""

    white: float
    peak: float


def is_wide(frame: VideoFrame) -> bool:
    """Whether a frame has an HDR transfer or wide primaries, so that a YUV matrix is not enough to get BT.709."""
    return int(frame.color_trc) in (PQ, HLG) or int(frame.color_primaries) in WIDE


def to_light(values: np.ndarray, transfer: int) -> np.ndarray:
    """Encoded RGB ``[..., 3]`` in [0, 1] to linear display light: nits for PQ and HLG, else relative to white.

    Args:
        transfer: AVCOL_TRC_*.
    """
    if transfer == PQ:
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = np.maximum(values, 0) ** (1 / m2)
        return 10_000 * (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1)
    if transfer == HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
        # Cameras and BT.2100 apply the system gamma to the luminance, zimg (ffmpeg's zscale) to each channel; seen with
        # the other rule, saturation is off by 10 to 20 %. Half of each keeps both within 10 %.
        luminance = (scene @ np.array([0.2627, 0.6780, 0.0593]))[..., None]
        return HLG_PEAK * scene * np.sqrt(np.maximum(luminance * scene, 1e-12)) ** 0.2
    return np.maximum(values, 0) ** GAMMA


def to_sdr(values: np.ndarray, transfer: int, primaries: int, levels: Range) -> np.ndarray:
    """Encoded RGB ``[..., 3]`` in [0, 1] to encoded BT.709 RGB ``[..., 3]`` in [0, 1].

    Args:
        transfer: AVCOL_TRC_* of the input.
        primaries: AVCOL_PRI_* of the input; unknown ones are BT.2020 with PQ and HLG, else BT.709.
        levels: white and peak of the video.
    """
    light = to_light(values, transfer)
    matrix = {9: _FROM_2020, 11: _FROM_P3, 12: _FROM_P3}.get(
        primaries, _FROM_2020 if transfer in (PQ, HLG) else np.eye(3)
    )
    light = np.maximum(light @ matrix.T, 0)
    if transfer in (PQ, HLG):
        light = _rolled_off(light / levels.white, levels.peak / levels.white)
    return np.clip(light, 0, 1) ** (1 / GAMMA)


def _rolled_off(light: np.ndarray, peak: float) -> np.ndarray:
    """Map ``peak`` to 1 and leave light below the knee; one factor for all three channels preserves hue."""
    if peak <= 1:
        return light
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-9)
    slope = (peak - KNEE) / (1 - KNEE)
    over = np.clip((brightest - KNEE) / (peak - KNEE), 0, 1)
    bent = KNEE + (1 - KNEE) * slope * over / (1 + (slope - 1) * over)
    return light * np.where(brightest > KNEE, bent / brightest, 1.0)


@once_per_file
def light_range(path: str | Path) -> Range:
    """White and peak of a video from some of its pictures, so that all of it is converted in the same way.

    White is 100 nits if the peak is at most 115 nits, as in SDR that was put into HDR unchanged; 203 nits if it is at least
    150; interpolated between (``UNLIFTED``).
    """
    peaks = [LEAST_WHITE]
    with open_input(path) as container:
        stream = picture_stream(container, path)
        length = stream.duration or 0
        for look in range(LOOKS if length else 1):
            with contextlib.suppress(Exception):  # what cannot be sought is judged by the pictures that can be read
                if look:
                    container.seek((stream.start_time or 0) + length * look // LOOKS, stream=stream)
                peaks.append(_brightest(next(container.decode(stream))))
    peak = max(peaks)
    return Range(float(np.interp(peak, UNLIFTED, (LEAST_WHITE, WHITE))), peak)


def _brightest(frame: VideoFrame) -> float:
    """The 99.9 % quantile of a frame's light, nits; scaled down first, because edges overshoot."""
    if int(frame.color_trc) not in (PQ, HLG):
        return 0.0
    width = min(frame.width, LOOK_WIDTH)
    height = max(1, round(frame.height * width / frame.width))
    small = frame.reformat(
        width=width, height=height, format="gbrp", src_colorspace=9, interpolation="AREA"
    ).to_ndarray()
    light = to_light(small.astype(np.float64) / 255, int(frame.color_trc)).max(-1)
    return float(np.quantile(light, 0.999))


class ToneMap:
    """Applies :func:`to_sdr` to frames in ``gbrp16le``, the one format for which the filter has vector code."""

    FORMAT = "gbrp16le"

    def __init__(self, width: int, height: int, transfer: int, primaries: int, levels: Range) -> None:
        import av.filter

        grid = np.linspace(0, 1, GRID)
        blue, green, red = np.meshgrid(grid, grid, grid, indexing="ij")  # red runs fastest in a .cube file
        table = to_sdr(np.stack([red, green, blue], -1).reshape(-1, 3), transfer, primaries, levels)
        with tempfile.NamedTemporaryFile("w", suffix=".cube", prefix="headstart-") as file:
            file.write(f"LUT_3D_SIZE {GRID}\n")
            np.savetxt(file, table, fmt="%.6f")
            file.flush()
            self._graph = av.filter.Graph()
            # Time bases do not matter here: one frame goes in, one comes out.
            source = self._graph.add("buffer", f"video_size={width}x{height}:pix_fmt={self.FORMAT}:time_base=1/25")
            table_filter = self._graph.add("lut3d", f"file={file.name}:interp=tetrahedral")
            source.link_to(table_filter)
            table_filter.link_to(self._graph.add("buffersink"))
            self._graph.configure()

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """``[H, W, 3]`` uint8 BT.709 RGB of a frame in ``FORMAT``."""
        self._graph.push(frame)
        values = np.asarray(self._graph.pull().to_ndarray(), np.uint16)
        return ((values - (values >> 8) + 128) >> 8).astype(np.uint8)  # x * 255 / 65535, rounded
