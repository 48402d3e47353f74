#!/usr/bin/env bash
# Guess: RationalTime.from_seconds(frame.to_seconds(), rate).to_frames() of OpenTimelineIO is the frame that one began with.
# Behaviour: it is the frame before for one frame in sixteen at 25 and 50 frames/s, and for one in seventy at 30 and 60. Frame 29 of
#   25 per second is at 1.16 s; from_seconds() multiplies to 28.999999999999996, and to_frames() cuts the fraction off. At 24
#   none is wrong; within one rate nothing is.
# Why it matters to a user of this field: cues, visemes and cuts come in seconds, and the cut list of a corpus becomes frames by
#   this call. One in sixteen boundaries is a frame early: a clip begins with another person's last frame, lips with the phoneme
#   before. Round seconds times rate yourself.
# Versions: OpenTimelineIO 0.18.1, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check opentimelineio==0.18.1

venv/bin/python - <<'EOF'
from opentimelineio.opentime import RationalTime

frames = range(10 * 60 * 25)
wrong = {}
for rate in (24, 25, 30, 50, 60):
    back = {k: RationalTime.from_seconds(RationalTime(k, rate).to_seconds(), rate) for k in frames}
    lost = [k for k in frames if back[k].to_frames() != k]
    assert all(back[k].to_frames() == k - 1 for k in lost)
    wrong[rate] = len(lost)
    examples = ", ".join(f"{k} -> {back[k].to_frames()} ({back[k].value})" for k in lost[:2])
    print(f"{rate} frames/s: {len(lost)} of {len(frames)} are the frame before; {examples}")
if not (wrong[24] == 0 and wrong[25] > 900 and wrong[50] > 900 and wrong[30] > 150):
    raise SystemExit("Changed: OpenTimelineIO finds the frame that begins at a time in seconds.")
EOF
