#!/usr/bin/env bash
# Guess: MediaPipe's normalised landmarks times the width are continuous picture coordinates, with 0 at the left edge
#   of the first pixel: the same face at 256 and 1,024 pixels has the same normalised landmarks.
# Behaviour: they count like pixel indices: 0 is the centre of the first pixel. The small picture's landmarks lie
#   about 2 px (of 1,024) to the upper left, far more than noise. Adding half a pixel of the input before scaling
#   removes most of it.
# Why it matters to a user of this field: trackers run on a small copy and renderers project in full size, where pixel
#   centres are at 0.5. Each scale factor s leaves an offset of (s - 1) / 2 pixels: soft lips and eyelids.
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


def track(picture):
    """Settled landmarks of a picture in its pixels, [478, 2]: the mean of calls 10 to 30."""
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, refine_landmarks=True) as mesh:
        faces = [mesh.process(picture).multi_face_landmarks[0].landmark for _ in range(30)]
    points = np.array([[(point.x, point.y) for point in face] for face in faces[10:]])
    return points.mean(axis=0) * picture.shape[0]


large = draw_face(1024)
reference = track(large)
as_stated = True
for size in (512, 256):
    factor = 1024 // size
    small = track(cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA))
    edges = factor * small - reference
    centres = factor * (small + 0.5) - 0.5 - reference
    rms = [np.sqrt((error**2).sum(axis=1).mean()) for error in (edges, centres)]
    print(f"{size} px against 1024 px, in pixels of 1024: mean offset {edges.mean(axis=0).round(2)}, rms {rms[0]:.2f}")
    print(f"  with the half pixel {centres.mean(axis=0).round(2)}, rms {rms[1]:.2f}")
    as_stated &= (edges.mean(axis=0) < -0.4 * (factor - 1)).all() and rms[1] < 0.5 * rms[0]
if not as_stated:
    raise SystemExit("Changed: FaceMesh's landmarks agree between picture sizes without a half pixel.")
EOF
