#!/usr/bin/env bash
# Guess: gsplat's export_splats() leaves out the Gaussians that hold a NaN or an infinite value, and keeps the others.
# Behaviour: so it does for means, scales, rotations and colours. But one infinite opacity removes all of them: the
#   check reduces the opacities to one flag for the whole scene. The result is a valid PLY with "element vertex 0", no
#   error.
# Why it matters to a user of this field: infinite logits are common, since 8-bit formats return opacity 0 and 1 so. A
#   trained head is then saved as an empty file. Clamp the opacities before the export, and count the vertices after it.
# Versions: gsplat 1.5.3, torch 2.13.0, numpy 1.26.4, Python 3.11, no GPU. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check gsplat==1.5.3 torch==2.13.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import re

import torch
from gsplat.exporter import export_splats

count = 1000
generator = torch.Generator().manual_seed(0)
scene = {
    "means": torch.randn(count, 3, generator=generator),
    "scales": torch.full((count, 3), -5.0),
    "quats": torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
    "opacities": torch.randn(count, generator=generator),
    "sh0": torch.randn(count, 1, 3, generator=generator),
    "shN": torch.zeros(count, 0, 3),
}


def vertices(name):
    """Export the scene with one infinite value in this tensor; the number of vertices in the PLY's header."""
    broken = {key: tensor.clone() for key, tensor in scene.items()}
    if name:
        broken[name].view(-1)[0] = float("inf")
    return int(re.search(rb"element vertex (\d+)", export_splats(**broken, format="ply")).group(1))


whole, mean, opacity = vertices(""), vertices("means"), vertices("opacities")
print(f"of {count} Gaussians: finite scene {whole}, one infinite position {mean}, one infinite opacity {opacity}")
if not (whole == count and mean == count - 1 and opacity == 0):
    raise SystemExit("Changed: gsplat exports the other Gaussians when one opacity is infinite.")
EOF
