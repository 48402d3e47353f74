#!/usr/bin/env bash
# Guess: a transform of albumentations moves the keypoints of a picture as it moves the picture.
# Behaviour: mirroring and turning count pixel indices (a keypoint on the middle of a pixel stays on it), resizing multiplies the
#   index by the scale, as if 0 were the pixel's left edge. Resized by 4, the picture lies 1.5 pixels to the right of and below
#   its keypoints; by a half, a quarter of a pixel to the other side. RandomResizedCrop, RandomScale and LongestMaxSize do the
#   same. A flip afterwards turns the error round.
# Why it matters to a user of this field: landmark networks are trained on such pictures. The error depends on how much each face
#   was enlarged, so it does not average out into a constant: large faces are learned a pixel off, mirrored ones to the other
#   side. Affine scales both together.
# Versions: albumentations 2.0.8, numpy 1.26.4, opencv-python-headless 4.11.0.86, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check albumentations==2.0.8 numpy==1.26.4 opencv-python-headless==4.11.0.86
export NO_ALBUMENTATIONS_UPDATE=1

venv/bin/python - <<'EOF'
import albumentations as A
import numpy as np

height, width, x, y = 64, 96, 40.0, 25.0
rows, columns = np.mgrid[:height, :width]
spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 18).astype(np.float32)  # brightest at the keypoint


def off(*transforms):
    composed = A.Compose(list(transforms), keypoint_params=A.KeypointParams("xy"), seed=1)
    result = composed(image=spot, keypoints=[(x, y)])
    picture = result["image"].astype(np.float64)
    at_rows, at_columns = np.mgrid[: picture.shape[0], : picture.shape[1]]
    centre = np.array([(picture * at_columns).sum(), (picture * at_rows).sum()]) / picture.sum()
    return np.asarray(result["keypoints"][0]) - centre


seen = {
    "mirrored": off(A.HorizontalFlip(p=1)),
    "turned by 30 degrees": off(A.Rotate((30, 30), p=1)),
    "twice as large by Affine": off(A.Affine(scale=(2, 2), p=1)),
    "resized by 1/2": off(A.Resize(height // 2, width // 2, interpolation=3)),
    "resized by 2": off(A.Resize(2 * height, 2 * width)),
    "resized by 4": off(A.Resize(4 * height, 4 * width)),
    "resized by 4, mirrored": off(A.Resize(4 * height, 4 * width), A.HorizontalFlip(p=1)),
    "RandomScale by 2": off(A.RandomScale((1, 1), p=1)),
    "LongestMaxSize, by 4": off(A.LongestMaxSize(4 * width)),
}
for name, error in seen.items():
    print(f"{name:25} keypoint less picture: {error[0]:+.2f}, {error[1]:+.2f} pixels")
kept = all(np.abs(seen[name]).max() < 0.05 for name in list(seen)[:3])
moved = np.allclose(seen["resized by 4"], -1.5, atol=0.05) and np.allclose(seen["resized by 1/2"], 0.25, atol=0.05)
if not (kept and moved and abs(seen["resized by 4, mirrored"][0] - 1.5) < 0.05):
    raise SystemExit("Changed: albumentations resizes keypoints together with the picture.")
EOF
