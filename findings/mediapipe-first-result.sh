#!/usr/bin/env bash
# Guess: MediaPipe's FaceMesh is deterministic, so a frozen picture gives the same landmarks in every call, from the
#   first.
# Behaviour: in video mode each call starts from the region of the last result. The first result after a start lies
#   more than a pixel (of 512) from where the landmarks settle, the next two a third of a pixel, and they keep moving by
#   hundredths of a pixel for ever, though not one pixel of the input changes. A new FaceMesh repeats it bit for bit.
# Why it matters to a user of this field: the first frames of each clip, shot or worker's share are tracked worse, and
#   cutting a video into pieces for parallel tracking moves the seams. Feed the first frame about five times.
# Versions: mediapipe 0.10.21 (models in the wheel), numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mediapipe==0.10.21 numpy==1.26.4

GLOG_minloglevel=2 venv/bin/python - 2>log.txt <<'EOF' || { tail -n 5 log.txt; exit 1; }
import cv2
import mediapipe
import numpy as np


def draw_face(size):
    """A shaded drawing of a frontal face, [size, size, 3] uint8: no person's picture."""
    scale = 2 * size / 512  # drawn at twice the size, then averaged
    canvas = np.full((2 * size, 2 * size, 3), (150, 160, 170), np.float32)

    def ellipse(x, y, width, height, colour, angle=0):
        centre, axes = (int(16 * scale * x), int(16 * scale * y)), (int(16 * scale * width), int(16 * scale * height))
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, colour, -1, cv2.LINE_AA, 4)

    ellipse(256, 240, 140, 170, (70, 50, 40))  # hair
    ellipse(256, 400, 60, 110, (190, 150, 125))  # neck
    ellipse(256, 268, 115, 150, (214, 172, 146))
    for side in (-1, 1):
        ellipse(256 + 48 * side, 245, 22, 10, (245, 245, 245))
        ellipse(256 + 48 * side, 245, 9.5, 9.5, (80, 60, 40))
        ellipse(256 + 48 * side, 245, 4, 4, (10, 10, 10))
        ellipse(256 + 48 * side, 220, 28, 5, (80, 55, 40), 5 * side)
        ellipse(256 + 13 * side, 305, 7, 4, (150, 100, 85))
    ellipse(256, 290, 10, 35, (222, 182, 156))
    ellipse(256, 345, 38, 12, (180, 90, 85))
    ellipse(256, 345, 34, 2.5, (110, 40, 40))
    y, x = np.mgrid[: 2 * size, : 2 * size] / scale
    canvas *= 1 - 0.25 * (((x - 230) / 200) ** 2 + ((y - 250) / 260) ** 2).clip(0, 1)[..., None]
    small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
    return cv2.GaussianBlur(small, (0, 0), 1.2 * size / 512).clip(0, 255).astype(np.uint8)


def track(picture, calls):
    """Landmarks of a frozen picture in each call of one tracker, in pixels [calls, 478, 2]."""
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, refine_landmarks=True) as mesh:
        faces = [mesh.process(picture).multi_face_landmarks[0].landmark for _ in range(calls)]
    return np.array([[(point.x, point.y) for point in face] for face in faces]) * picture.shape[0]


picture = draw_face(512)
points = track(picture, 40)
off = np.linalg.norm(points - points[20:].mean(axis=0), axis=2).mean(axis=1)
steps = np.linalg.norm(np.diff(points, axis=0), axis=2).mean(axis=1)
repeats = np.array_equal(points[:10], track(picture, 10))
print("mean distance to where the landmarks settle, in pixels of 512:")
print(" ", "  ".join(f"call {call + 1}: {off[call]:.3f}" for call in (0, 1, 2, 4, 9)))
print(f"movement from call to call in calls 20 to 40: {steps[19:].min():.4f} to {steps[19:].max():.4f} pixels")
print(f"a second tracker gives the same ten results: {repeats}")
if not (off[0] > 0.7 and off[0] > 5 * off[5:].max() and steps[19:].min() > 1e-4 and repeats):
    raise SystemExit("Changed: FaceMesh is settled from the first call, or comes to rest on a frozen picture.")
EOF
