#!/usr/bin/env bash
# Guess: Caption.start_in_seconds of webvtt-py is the start of a cue in seconds: 1.99 for 00:00:01.990.
# Behaviour: it is 1, an integer. The milliseconds are cut off, not rounded, at the start and at the end, so a cue can be a
#   whole second early, and cues within one second have no duration.
# Why it matters to a user of this field: timed words and visemes of a voice come as WebVTT, a cue of 50 to 300 ms each, and with
#   these properties all mouth shapes of a second fall on its beginning. Use start_time.in_milliseconds() / 1000.
# Versions: webvtt-py 0.6.0, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check webvtt-py==0.6.0

venv/bin/python - <<'EOF'
import webvtt

words = [("hello", 0.080, 0.420), ("there", 0.420, 0.700), ("Monday", 0.950, 1.410), ("mum", 1.990, 2.180)]


def stamp(seconds):
    return f"00:00:{seconds:06.3f}"


with open("words.vtt", "w") as file:
    cues = (f"{stamp(start)} --> {stamp(end)}\n{word}\n" for word, start, end in words)
    file.write("WEBVTT\n\n" + "\n".join(cues))

read = [(caption.start_in_seconds, caption.end_in_seconds) for caption in webvtt.read("words.vtt")]
exact = [caption.start_time.in_milliseconds() / 1000 for caption in webvtt.read("words.vtt")]
for (word, start, end), (read_start, read_end) in zip(words, read):
    early = f"the start is {1000 * (start - read_start):.0f} ms early"
    print(f"{word:7} {start:.3f} to {end:.3f} s, read as {read_start!r} to {read_end!r}: {early}")
print("start_time.in_milliseconds() / 1000:", exact)
if not (read == [(0, 0), (0, 0), (0, 1), (1, 2)] and exact == [start for _, start, _ in words]):
    raise SystemExit("Changed: webvtt-py gives times in seconds with their fractions.")
EOF
