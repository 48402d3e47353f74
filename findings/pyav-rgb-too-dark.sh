#!/usr/bin/env bash
# Guess: frame.to_ndarray(format="rgb24") rounds to the nearest level: against the BT.601 formula it errs by up to
#   half a level or so, with mean zero.
# Behaviour: swscale's default conversion truncates. Every channel comes out 1.0 to 1.5 levels dark on average. PyAV's
#   ACCURATE_RND does not help by itself; only together with FULL_CHR_H_INT is the mean error below 0.05 levels.
# Why it matters to a user of this field: a head trained on such frames learns the darkening, and a metric against
#   frames of another decoder carries the offset: 1.2 levels alone bound the PSNR to 46.5 dB.
# Versions: av (PyAV) 18.1.0 with its bundled FFmpeg, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check av==18.1.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import av
import numpy as np
from av.video.reformatter import Interpolation

size = 256
luma = np.tile(np.linspace(60, 200, size).round(), (size, 1))
ramp = np.linspace(104, 152, size // 2).round()[:, None]
blue, red = np.tile(ramp, (1, size // 2)), np.tile(ramp[::-1], (1, size // 2))
planes = np.concatenate([plane.ravel() for plane in (luma, blue, red)]).astype(np.uint8)
frame = av.VideoFrame.from_ndarray(planes.reshape(size * 3 // 2, size), format="yuv420p")

# BT.601, limited range; chroma repeated, which is exact along the rows, where it is constant.
y = (luma - 16) / 219
cb, cr = [((plane - 128) / 224).repeat(2, 0).repeat(2, 1) for plane in (blue, red)]
r, b = y + 1.402 * cr, y + 1.772 * cb
exact = 255 * np.stack([r, (y - 0.299 * r - 0.114 * b) / 0.587, b], axis=-1)

flags = {
    "default": Interpolation.BILINEAR,
    "ACCURATE_RND": Interpolation.BILINEAR | Interpolation.ACCURATE_RND,
    "both": Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT,
}
mean = {}
for name, flag in flags.items():
    error = frame.to_ndarray(format="rgb24", interpolation=flag) - exact
    mean[name] = error[16:-16, 16:-16].mean(axis=(0, 1))
    print(f"{name:13} mean error of R, G, B in levels: {mean[name].round(2)}")
plain = frame.to_ndarray(format="rgb24") - exact
print(f"no argument   mean error of R, G, B in levels: {plain[16:-16, 16:-16].mean(axis=(0, 1)).round(2)}")

if not ((mean["default"] < -0.7).all() and (mean["ACCURATE_RND"] < -0.3).all() and np.abs(mean["both"]).max() < 0.05):
    raise SystemExit("Changed: PyAV's default conversion to RGB is no longer dark, or its flags act otherwise.")
EOF
