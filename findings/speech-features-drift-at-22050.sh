#!/usr/bin/env bash
# Guess: python_speech_features gives a row every winstep seconds, 10 ms by default, at any sampling rate.
# Behaviour: the step is rounded to whole samples, and 10 ms at 22,050 Hz are 220.5: it becomes 221. Rows are 10.023 ms apart, a
#   click at 60 s is in row 5985 instead of 5999, and after a minute the rows are 0.14 s behind their index. Nothing is said, and
#   16, 24, 44.1 and 48 kHz are exact.
# Why it matters to a user of this field: these MFCCs feed SyncNet and the older lip-sync networks, four rows a video frame, and
#   22,050 Hz is the rate of many text-to-speech voices. The mouth drifts off the voice by 2.3 ms per second: it fits in a test
#   sentence and is three frames off after a minute. Resample to 16 kHz first.
# Versions: python_speech_features 0.6, scipy 1.15.3, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check python_speech_features==0.6 scipy==1.15.3 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
from python_speech_features import logfbank

behind = {}
for rate in (16000, 22050, 24000, 44100, 48000):
    for second in (1, 60):
        sound = np.zeros(rate * (second + 1))
        sound[rate * second] = 1e4  # a click
        energy = logfbank(sound, rate, nfft=2048).sum(1)
        heard = np.flatnonzero(energy > energy.min() + 5)  # two or three windows of 25 ms hold it
        centre = 0.010 * heard.mean() + 0.0125
        behind[rate, second] = 1000 * (second - centre)
        print(f"{rate} Hz: a click at {second:2} s is in rows {heard[0]} to {heard[-1]}, which the index places at", end=" ")
        print(f"{centre:.3f} s ({behind[rate, second]:+.1f} ms)")
exact = all(abs(off) < 6 for (rate, second), off in behind.items() if rate != 22050 or second == 1)
if not (exact and 130 < behind[22050, 60] < 145):
    raise SystemExit("Changed: rows of python_speech_features keep their time at 22,050 Hz.")
EOF
