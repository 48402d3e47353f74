#!/usr/bin/env bash
# Guess: a number that is sent arrives; integers beyond 32 bits do, as 64-bit ones.
# Behaviour: a float is always sent as 32 bits. A Unix time in seconds arrives rounded to 128 s, up to 64 s off, without a warning; the type
#   "d" must be asked for with every argument. Integers beyond 32 bits are widened to "h" by themselves.
# Why it matters to a user of this field: face capture is streamed by OSC (VMC, and bridges of phone apps), with the time of each frame beside
#   its blend shapes. All frames of two minutes get one time, and lips can no longer be put in step with the sound.
# Versions: python-osc 1.10.2, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check python-osc==1.10.2

venv/bin/python - <<'EOF'
from pythonosc.osc_message import OscMessage
from pythonosc.osc_message_builder import OscMessageBuilder


def sent(value, kind=None):
    builder = OscMessageBuilder("/face/time")
    builder.add_arg(value, kind)
    return OscMessage(builder.build().dgram).params[0]


start = 1_780_000_000.0
frames = [start + k / 25 for k in range(1500)]  # a minute
arrived = [sent(time) for time in frames]
print("different times sent and arrived:", len(set(frames)), len(set(arrived)))
print("furthest off, s                 :", max(abs(a - b) for a, b in zip(frames, arrived)))
print("as type 'd', furthest off, s    :", max(abs(sent(time, "d") - time) for time in frames))
wide = 3_000_000_000
print("the integer", wide, "arrives as", sent(wide))
if not (len(set(arrived)) <= 2 and sent(wide) == wide):
    raise SystemExit("Changed: floats that 32 bits do not hold are sent in 64, or integers no longer are.")
EOF
