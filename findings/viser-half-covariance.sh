#!/usr/bin/env bash
# Guess: viser's add_gaussian_splats() shows the covariances it is given; float32 arrays of small Gaussians are fine.
# Behaviour: it packs them as float16. A covariance is a squared length, and float16 ends at 6e-8: a standard
#   deviation of 0.1 mm, in metres, is stored as zero, 0.3 mm is 15 % too large, and no warning is printed.
# Why it matters to a user of this field: heads are usually in metres, and their finest Gaussians (lashes, lips,
#   pores) have such sizes. They lose their shape in the viewer alone: scale the scene up before showing it.
# Versions: viser 1.1.1, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check viser==1.1.1 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
import viser

sigma = np.array([1e-2, 1e-3, 3e-4, 1e-4])  # metres
count = len(sigma)
covariances = np.eye(3, dtype=np.float32)[None] * (sigma**2)[:, None, None].astype(np.float32)
server = viser.ViserServer(host="127.0.0.1", port=0, verbose=False)
try:
    splats = server.scene.add_gaussian_splats(
        "/head",
        centers=np.zeros((count, 3), np.float32),
        covariances=covariances,
        rgbs=np.ones((count, 3), np.float32),
        opacities=np.ones((count, 1), np.float32),
    )
    packed = np.ascontiguousarray(splats.buffer[:, 4:7]).view(np.float16)  # [N, 6]: the upper triangle
finally:
    server.stop()

sent = np.sqrt(packed[:, 0].astype(np.float64))
for given, stored in zip(sigma, sent):
    change = 100 * (stored / given - 1)
    print(f"standard deviation given {given:.1e} m, sent to the viewer {stored:.3e} m ({change:+.1f} %)")
if not (sent[3] == 0 and abs(sent[2] / sigma[2] - 1) > 0.1 and abs(sent[0] / sigma[0] - 1) < 0.01):
    raise SystemExit("Changed: viser keeps the covariance of small Gaussians.")
EOF
