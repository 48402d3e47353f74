#!/usr/bin/env bash
# Guess: time-scale modification with speed 1 returns the sound as it is; other speeds move an event to its time divided by the speed.
# Behaviour: wsola() and phasevocoder() of audiotsm return the sound 512 samples late, 32 ms at 16 kHz, and without
#   the last 0.07 to 0.1 s. ola() of the same package is on time.
# Why it matters to a user of this field: clips of speech are made slower or faster to vary a corpus, their lips are moved by the same
#   factor, and those at speed 1 are kept as they were. Even these are 0.8 of a frame late against the lips, and end before their pictures do.
# Versions: audiotsm 0.1.2, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check audiotsm==0.1.2 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
from audiotsm import ola, phasevocoder, wsola
from audiotsm.io.array import ArrayReader, ArrayWriter

RATE = 16_000
sound = np.zeros((1, RATE))
rng = np.random.default_rng(0)
sound[0, 8000:8400] = 0.5 * rng.standard_normal(400)  # a burst at 0.5 s, as of a plosive


def begins(method, speed):
    reader, writer = ArrayReader(sound), ArrayWriter(1)
    method(1, speed=speed).run(reader, writer)
    found = writer.data[0]
    energy = np.cumsum(found**2)
    first = int(np.searchsorted(energy, 0.05 * energy[-1]))
    return first, len(found)


real = int(np.searchsorted(np.cumsum(sound[0] ** 2), 0.05 * (sound**2).sum()))
late = {}
for method in (ola, wsola, phasevocoder):
    first, length = begins(method, 1.0)
    late[method.__name__] = first - real
    print(f"{method.__name__:13s} speed 1: the burst is {1000 * (first - real) / RATE:5.1f} ms late, {1000 * (RATE - length) / RATE:5.1f} ms are missing at the end")
if not (abs(late["ola"]) < 16 and all(400 < late[name] < 620 for name in ("wsola", "phasevocoder"))):
    raise SystemExit("Changed: wsola() and phasevocoder() at speed 1 are on time, or ola() is not.")
EOF
