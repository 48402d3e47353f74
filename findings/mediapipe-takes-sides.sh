#!/usr/bin/env bash
# Guess: FaceMesh was trained on as many mirrored faces as unmirrored ones, so a picture that equals its own mirror image
#   gives a face that does too: no yaw, no roll, corners of the eyes on one height.
# Behaviour: it gives a lopsided face. On drawings that are symmetric to the bit, landmarks lie up to 1.9 px (of 512) higher
#   than their partners, their middles up to 1.4 px beside the axis, and depth says a yaw of up to 0.5 degrees. Size and sign
#   depend on the face: a wider face turns the other way, so no constant removes it.
# Why it matters to a user of this field: each person of a corpus gets a bias of pose and shape of its own, which avatars and
#   learned face bases take for the person's. The mean over a picture and its mirror image has none, at twice the time.
# Versions: mediapipe 0.10.21 (models in the wheel), numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mediapipe==0.10.21 numpy==1.26.4

GLOG_minloglevel=2 venv/bin/python - 2>log.txt <<'PYTHON' || { tail -n 5 log.txt; exit 1; }
import cv2
import mediapipe
import numpy as np

SIZE = 512
# Landmarks that are mirror images of each other: eye corners, mouth corners, cheeks, jaw, brows.
SIDES = np.array([(33, 263), (133, 362), (61, 291), (234, 454), (172, 397), (70, 300), (50, 280)]).T


def draw_face(width):
    """A drawing of a frontal face [512, 512, 3] uint8 that equals its own mirror image; no person's picture."""
    canvas = np.full((2 * SIZE, 2 * SIZE, 3), (150, 160, 170), np.float32)

    def ellipse(x, y, across, down, colour, angle=0):
        centre, axes = (int(32 * x), int(32 * y)), (int(32 * across), int(32 * down))
        cv2.ellipse(canvas, centre, axes, angle, 0, 360, colour, -1, cv2.LINE_AA, 4)

    ellipse(256, 240, 140 * width, 170, (70, 50, 40))  # hair
    ellipse(256, 400, 60, 110, (190, 150, 125))  # neck
    ellipse(256, 268, 115 * width, 150, (214, 172, 146))
    for side in (-1, 1):
        ellipse(256 + 48 * side, 245, 22, 10, (245, 245, 245))
        ellipse(256 + 48 * side, 245, 9.5, 9.5, (80, 60, 40))
        ellipse(256 + 48 * side, 220, 28, 5, (80, 55, 40), 5 * side)
        ellipse(256 + 13 * side, 305, 7, 4, (150, 100, 85))
    ellipse(256, 290, 10, 35, (222, 182, 156))
    ellipse(256, 345, 38, 12, (180, 90, 85))
    small = cv2.GaussianBlur(cv2.resize(canvas, (SIZE, SIZE), interpolation=cv2.INTER_AREA), (0, 0), 1.2)
    picture = ((small + small[:, ::-1]) / 2).clip(0, 255).astype(np.uint8)
    assert np.array_equal(picture, picture[:, ::-1])
    return picture


def landmarks(picture):
    """Settled landmarks [478, 3] in px from the picture's edge."""
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, refine_landmarks=True) as mesh:
        for _ in range(8):
            face = mesh.process(picture).multi_face_landmarks[0].landmark
    return np.array([(p.x, p.y, p.z) for p in face]) * SIZE + [0.5, 0.5, 0]


lean, beside, yaw = [], [], []
for width in (0.85, 0.92, 1.0, 1.1):
    left, right = landmarks(draw_face(width))[SIDES]
    lean.append((right - left)[:, 1])
    beside.append((left + right)[:, 0] / 2 - SIZE / 2)
    yaw.append(np.degrees(np.arctan2((right - left)[:, 2], (right - left)[:, 0])))
    print(f"face {width:.2f} as wide: one side higher by {np.abs(lean[-1]).max():.2f} px, middles beside the axis by up to "
          f"{np.abs(beside[-1]).max():.2f} px, yaw {np.median(yaw[-1]):+.2f} degrees")
medians = [float(np.median(values)) for values in yaw]
if not (np.abs(lean).max() > 1 and np.abs(beside).max() > 1 and max(medians) > 0.2 and min(medians) < 0):
    raise SystemExit("Changed: FaceMesh gives a symmetric face for a symmetric picture.")
PYTHON
