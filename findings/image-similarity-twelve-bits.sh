#!/usr/bin/env bash
# Guess: psnr() and ssim() of image-similarity-measures, given two 8-bit pictures, compare them as 8-bit pictures.
# Behaviour: they take 4,095 for the largest value, that of 12-bit satellite pictures, whatever the arrays' type. PSNR is 24.1 dB
#   too high: two pictures of noise have 32 dB. SSIM is wrong in the same way: 0.58 for unrelated noise.
# Why it matters to a user of this field: heads are compared by fractions of a decibel, and 32 dB reads like a good
#   fit of a head. Nothing in the result hints at it. Pass max_p=255.
# Versions: image-similarity-measures 0.3.6, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check image-similarity-measures==0.3.6 numpy==1.26.4 opencv-python==4.11.0.86

venv/bin/python - <<'EOF'
import numpy as np
from image_similarity_measures.quality_metrics import psnr, ssim

generator = np.random.default_rng(0)
noise, other = generator.integers(0, 256, (2, 128, 128, 3)).astype(np.uint8)
near = np.clip(noise.astype(int) + generator.integers(-20, 21, noise.shape), 0, 255).astype(np.uint8)

excess = []
for name, one, two in [("unrelated noise", noise, other), ("up to 20 levels apart", noise, near)]:
    true = 10 * np.log10(255**2 / np.mean((one.astype(float) - two) ** 2))
    given = psnr(one, two)
    excess.append(given - true)
    print(f"{name:22} PSNR {given:.1f} dB, true {true:.1f};", end=" ")
    print(f"SSIM {ssim(one, two):.3f}, with max_p=255 {ssim(one, two, max_p=255):.3f}")
print(f"20 log10(4095 / 255) = {20 * np.log10(4095 / 255):.2f} dB")
if not np.allclose(excess, 20 * np.log10(4095 / 255), atol=0.2):
    raise SystemExit("Changed: image-similarity-measures takes 255 for the largest value of 8-bit pictures.")
EOF
