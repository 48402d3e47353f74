#!/usr/bin/env bash
# Guess: soxr.resample() of digital silence is digital silence, and resampling a constant gives that constant.
# Behaviour: for int16 it adds dither. About a quarter of the samples of silence become -1 or 1, even at the lowest
#   quality; float32 input is left alone. The noise is the same in every call, so it shows up in no test of
#   repeatability, and the Python interface has no option for it.
# Why it matters to a user of this field: muted stretches and tracks without sound are recognised by zeros (has sound,
#   is silent, where a phrase begins), FLAC of silence grows, and log-mel features get a floor of noise instead of one of
#   constants. Convert to float32 before resampling and to int16 after it.
# Versions: soxr 1.1.0, numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check soxr==1.1.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
import soxr

silence = np.zeros(48_000, np.int16)
shares = {}
for quality in ("QQ", "MQ", "HQ", "VHQ"):
    found = soxr.resample(silence, 48_000, 16_000, quality)
    shares[quality] = np.count_nonzero(found) / len(found)
    print(f"one second of int16 silence, {quality}: {100 * shares[quality]:.0f} % of the samples are {sorted(set(found.tolist()) - {0})}")
again = np.array_equal(soxr.resample(silence, 48_000, 16_000), soxr.resample(silence, 48_000, 16_000))
level = soxr.resample(np.full(48_000, 1000, np.int16), 48_000, 16_000)[2000:-2000]
plain = soxr.resample(silence.astype(np.float32), 48_000, 16_000)
print(f"a second call gives the same noise: {again}; the constant 1000 becomes {sorted(set(level.tolist()))}")
print(f"float32 silence: {np.count_nonzero(plain)} samples that are not 0")
if not (min(shares.values()) > 0.1 and again and len(set(level.tolist())) > 1 and not plain.any()):
    raise SystemExit("Changed: soxr.resample() adds no dither to int16.")
EOF
