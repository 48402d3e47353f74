#!/usr/bin/env bash
# Guess: flip_evaluator.evaluate() scales 8-bit pictures itself, or refuses arrays outside 0..1.
# Behaviour: values are clipped at 1. Two different uint8 pictures without black pixels are both white to it, so it
#   returns a mean error of exactly 0, the score of identical pictures. The same pictures over 255 give a large error.
# Why it matters to a user of this field: frames arrive as uint8 from decoders and renderers. The metric then reports
#   a perfect head, and an average over frames hides it. Divide by 255 first.
# Versions: flip-evaluator 1.7, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check flip-evaluator==1.7 numpy==1.26.4

venv/bin/python - <<'EOF'
import flip_evaluator
import numpy as np

rng = np.random.default_rng(0)
reference = rng.integers(1, 256, (64, 64, 3), dtype=np.uint8)
test = rng.integers(1, 256, (64, 64, 3), dtype=np.uint8)


def mean_error(first, second):
    return flip_evaluator.evaluate(first, second, "LDR", applyMagma=False)[1]


as_bytes = mean_error(reference, test)
as_floats = mean_error(reference / np.float32(255), test / np.float32(255))
print(f"two unrelated pictures: as uint8 {as_bytes}, as floats in 0..1 {as_floats:.3f}")
if not (as_bytes == 0 and as_floats > 0.3):
    raise SystemExit("Changed: flip_evaluator no longer clips 8-bit pictures to white.")
EOF
