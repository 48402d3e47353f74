#!/usr/bin/env bash
# Guess: Timecode.float of the timecode library is a time in seconds: 0 for 00:00:00:00, and 3600 s after an hour of drop-frame
#   code at 29.97 frames/s, which is made so that its hours are hours.
# Behaviour: it is the count of frames, from 1, over the rounded rate: 1/30 s for 00:00:00:00, and 3596.433 s after that hour, 3.6 s
#   short. to_realtime(True) has the right scale, and is one frame (33 ms at 30, 17 ms at 60) late at any rate.
# Why it matters to a user of this field: Live Link Face and the recorders of a stage stamp takes with drop-frame timecode, and face
#   weights are joined to video and sound by it. One frame late is what makes lips trail the voice, and a take after an hour
#   begins seconds off. Use frame_number (it counts from 0) times 1001/30000.
# Versions: timecode 1.5.1, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check timecode==1.5.1

venv/bin/python - <<'EOF'
from fractions import Fraction

from timecode import Timecode

lengths = {"25": Fraction(1, 25), "30": Fraction(1, 30), "60": Fraction(1, 60), "29.97": Fraction(1001, 30000)}
lengths["59.94"] = Fraction(1001, 60000)
errors = {}
for rate, length in lengths.items():
    for stamp in ("00:00:00:00", "01:00:00:00"):
        code = Timecode(rate, stamp)  # drop-frame at 29.97 and 59.94
        right = float(code.frame_number * length)
        errors[rate, stamp] = (code.float - right, code.to_realtime(True) - right)
        print(f"{rate:>5} frames/s, {code}: frame {code.frame_number:6} from 0, {right:8.3f} s;", end=" ")
        print(f"float {code.float:8.3f}, to_realtime {code.to_realtime(True):8.3f}")
by_one = all(abs(real - lengths[rate]) < 1e-3 for (rate, _), (_, real) in errors.items())
if not (by_one and errors["29.97", "01:00:00:00"][0] < -3.5 and errors["25", "01:00:00:00"][0] > 0.039):
    raise SystemExit("Changed: timecode gives the time of a timecode in seconds.")
EOF
