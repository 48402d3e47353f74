#!/usr/bin/env bash
# Guess: interpolate(new_fps) gives the pose at the times of the new frames: frame k of 50 a second is where frame k / 2 of 25 was.
# Behaviour: the new frames are spread from the first to the last old one, so the last new frame, which begins half an old frame later, is
#   the last old frame. Motion is slowed down, and every frame shows what comes earlier, by up to half an old frame at the end
#   for twice the rate; for half the rate motion is faster, and the end is a whole old frame early.
# Why it matters to a user of this field: landmarks at 30 frames a second are resampled to 25 for a sync model. They drift against the sound along the
#   clip, differently for each length and rate, where a constant offset could have been corrected.
# Versions: pose-format 0.15.0, numpy 1.26.4, scipy 1.17.1, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pose-format==0.15.0 numpy==1.26.4 scipy==1.17.1

venv/bin/python - <<'EOF'
import numpy as np
from pose_format.numpy import NumPyPoseBody

frames = 30
data = np.zeros((frames, 1, 1, 2), np.float32)
data[:, 0, 0, 0] = np.arange(frames) / 25  # x of a landmark is the time, in seconds
body = NumPyPoseBody(25, np.ma.array(data, mask=np.zeros_like(data, bool)), np.ones((frames, 1, 1), np.float32))
off = {}
for fps in (50, 30, 12.5):
    new = body.interpolate(new_fps=fps, kind="linear")
    shown = np.asarray(new.data[:, 0, 0, 0], float)
    wanted = np.minimum(np.arange(len(shown)) / fps, (frames - 1) / 25)
    off[fps] = 1000 * (shown - wanted)
    print(f"{fps:5} a second: {len(shown)} frames; off by {off[fps][0]:+.1f} ms at the first, {off[fps][len(shown) // 2]:+.1f} in the middle, {off[fps][-2]:+.1f} before the last")
if not (off[50][-2] < -10 and off[12.5][-2] > 20 and abs(off[50][1]) < 2):
    raise SystemExit("Changed: interpolate() gives the pose at the times of the new frames.")
EOF
