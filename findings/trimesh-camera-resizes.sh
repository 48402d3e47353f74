#!/usr/bin/env bash
# Guess: trimesh's Camera takes the intrinsics of a calibrated camera, camera.K = [[f, 0, cx], [0, f, cy], [0, 0, 1]], or refuses a
#   principal point that is not in the middle.
# Behaviour: it takes them, and changes the picture's size instead: the resolution becomes 2 cx by 2 cy. 640 x 480 with the point at
#   (308.4, 251.7) has become 616 x 503, and the rays are those of another picture. No warning.
# Why it matters to a user of this field: face tracks carry principal points that are off the middle, above all those of a crop.
#   For a 256 x 256 crop whose point lies at (128, 340) the camera casts 256 x 680 rays: depth and masks of the head mesh do not
#   fit the frame, or are resized to fit it and lie elsewhere. Cast rays from K by hand.
# Versions: trimesh 5.2.0, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check trimesh==5.2.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
import trimesh

changed = True
for size, focal, point in [((640, 480), 500, (320, 240)), ((640, 480), 500, (308.4, 251.7)), ((256, 256), 900, (128, 340))]:
    camera = trimesh.scene.Camera(resolution=size, focal=(focal, focal))
    camera.K = np.array([[focal, 0, point[0]], [0, focal, point[1]], [0, 0, 1.0]])
    vectors, _ = camera.to_rays()
    at = tuple(int(side) for side in camera.resolution)
    print(f"{size[0]} x {size[1]}, principal point {point}: now {at[0]} x {at[1]},", end=" ")
    print(f"{tuple(camera.K[:2, 2].round(1).tolist())}, {len(vectors)} rays for {size[0] * size[1]} pixels")
    if point != (size[0] / 2, size[1] / 2):
        changed &= at != size and np.allclose(at, 2 * np.array(point), atol=1)
if not changed:
    raise SystemExit("Changed: trimesh's camera keeps its resolution when a principal point is set, or refuses it.")
EOF
