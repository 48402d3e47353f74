#!/usr/bin/env bash
# Guess: with time_step=0.04, row k of a pitch or intensity track by parselmouth (Praat) belongs to frame k of a video at
#   25 frames a second, at 40 k ms or 40 k + 20 ms.
# Behaviour: rows are centred in the recording. The first lies at half of what is left over, which depends on the length
#   and on the measure: the same voice, cut 38 ms longer, has its pitch rows 19 ms later, and intensity lies 20 ms beside
#   pitch, with another number of rows, within one recording. Only `.x1` and `.xs()` tell.
# Why it matters to a user of this field: pitch and energy stacked beside 25-fps tracks by row number are off by up to a
#   frame, by another amount in every clip: a blur that a model learns. Sample by time (`get_value_at_time`) instead.
# Versions: praat-parselmouth 0.4.7, numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check praat-parselmouth==0.4.7 numpy==1.26.4

venv/bin/python - <<'EOF'
import numpy as np
import parselmouth

RATE, STEP = 16_000, 0.04
voice = 0.1 * np.sign(np.sin(2 * np.pi * 120 * np.arange(2 * RATE) / RATE))
rows = {}
for length in (1.0, 1.02, 1.0375):
    sound = parselmouth.Sound(voice[: round(length * RATE)], RATE)
    for name, track in (("pitch", sound.to_pitch(time_step=STEP)), ("intensity", sound.to_intensity(time_step=STEP))):
        rows[length, name] = (track.x1, track.n_frames)
        print(f"{length:.4f} s, {name:<9}: {track.n_frames} rows, row k at {1000 * STEP:.0f} k + {1000 * track.x1:.1f} ms")
moved = rows[1.0375, "pitch"][0] - rows[1.0, "pitch"][0]
apart = rows[1.0, "intensity"][0] - rows[1.0, "pitch"][0]
print(f"38 ms more sound at the end move every row of pitch by {1000 * moved:.1f} ms; intensity is {1000 * apart:.1f} ms beside it")
if not (moved > 0.015 and apart > 0.015 and rows[1.0, "pitch"][1] != rows[1.0, "intensity"][1]):
    raise SystemExit("Changed: rows of Praat's tracks no longer depend on the recording's length.")
EOF
