#!/usr/bin/env bash
# Guess: decode_jpeg(fastdct=True) adds a little rounding noise ("a minor loss in quality") around the same mean.
# Behaviour: red and blue come out more than one level darker on average, at every quality; green keeps its mean.
#   fastupsample=True, the other speed option, leaves the means alone.
# Why it matters to a user of this field: the tint is the same in every frame, so a trained head learns it: a loader
#   with the option and a metric without it disagree about skin colour by a level, for 4-5 % of the decoding time.
# Versions: simplejpeg 1.9.0 with its libjpeg-turbo, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check simplejpeg==1.9.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
import simplejpeg

rng = np.random.default_rng(0)
y, x = np.mgrid[:256, :256]
waves = np.stack([120 + 80 * np.sin(x / 9), 120 + 80 * np.sin(y / 11), 110 + 70 * np.sin((x + y) / 13)], axis=-1)
picture = (waves + rng.normal(0, 6, waves.shape)).clip(0, 255).astype(np.uint8)

stable = True
for quality in (75, 95):
    data = simplejpeg.encode_jpeg(picture, quality=quality, colorsubsampling="420")
    slow = simplejpeg.decode_jpeg(data).astype(int)
    shift = {}
    for option in ("fastdct", "fastupsample"):
        shift[option] = (simplejpeg.decode_jpeg(data, **{option: True}) - slow).mean(axis=(0, 1))
        print(f"quality {quality}, {option}: mean change of R, G, B in levels {shift[option].round(2)}")
    red, green, blue = shift["fastdct"]
    stable &= red < -0.8 and blue < -0.8 and abs(green) < 0.3 and np.abs(shift["fastupsample"]).max() < 0.1
if not stable:
    raise SystemExit("Changed: fastdct no longer darkens red and blue by a level.")
EOF
