#!/usr/bin/env bash
# Guess: samplerate.Resampler fed in blocks, the last one with end_of_input=True, returns what one call over the whole
#   signal returns; or a further call with an empty block returns the rest.
# Behaviour: one second of 48 kHz in blocks of 1,024 gives 15,857 samples at 16 kHz instead of 16,000. The last 143
#   (8.9 ms) are lost: further calls return nothing. One call over everything gives all 16,000.
# Why it matters to a user of this field: speech models want 16 kHz, long recordings are resampled in blocks, and each
#   recording then ends early; joined recordings slide against their video by 9 ms each.
# Versions: samplerate 0.2.4, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check samplerate==0.2.4 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
import samplerate

signal = np.random.default_rng(0).normal(0, 0.1, 48000).astype(np.float32)
ratio = 16000 / 48000

whole = samplerate.Resampler("sinc_best", channels=1).process(signal, ratio, end_of_input=True)
stream = samplerate.Resampler("sinc_best", channels=1)
starts = range(0, len(signal), 1024)
blocks = [stream.process(signal[at : at + 1024], ratio, end_of_input=at == starts[-1]) for at in starts]
rest = [stream.process(np.zeros(0, np.float32), ratio, end_of_input=True) for _ in range(3)]
joined, drained = sum(map(len, blocks)), sum(map(len, rest))
print(f"one call: {len(whole)} samples; in blocks: {joined}; three more calls: {drained}")
same = np.allclose(np.concatenate(blocks), whole[:joined], atol=1e-5)
print(f"the samples that come are right: {same}; lost: {len(whole) - joined} ({(len(whole) - joined) / 16:.1f} ms)")
if not (len(whole) == 16000 and joined == 15857 and drained == 0 and same):
    raise SystemExit("Changed: samplerate.Resampler returns the tail of a signal that is fed in blocks.")
EOF
