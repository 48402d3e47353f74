#!/usr/bin/env bash
# Guess: safetensors.numpy.save_file() stores any array, or refuses a strided one as safetensors.torch does.
# Behaviour: it writes the memory behind the array in memory order under the array's shape. A transposed view comes
#   back scrambled with the right shape, a view of every second element comes back as the first half, and nothing is
#   raised.
# Why it matters to a user of this field: converters store w.T for a linear layer, or xyz columns cut from a table of
#   Gaussians. The file passes every shape check and the head is noise. Call np.ascontiguousarray() first.
# Versions: safetensors 0.8.0, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
from safetensors.numpy import load_file, save_file

matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
line = np.arange(8, dtype=np.float32)
given = {"transposed": matrix.T, "every_second": line[::2], "copied": np.ascontiguousarray(matrix.T)}
save_file(given, "weights.safetensors")
back = load_file("weights.safetensors")
for name, array in given.items():
    print(f"{name}: saved {array.tolist()}, loaded {back[name].tolist()}")

scrambled = np.array_equal(back["transposed"], matrix.reshape(3, 2))
first_half = np.array_equal(back["every_second"], line[:4])
if not (scrambled and first_half and np.array_equal(back["copied"], matrix.T)):
    raise SystemExit("Changed: safetensors.numpy no longer writes strided arrays in memory order.")
EOF
