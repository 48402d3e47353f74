#!/usr/bin/env bash
# Guess: writing the same AAC and H.264 packets into a fragmented MP4 (the form that streams) changes the boxes, not
#   the time line: decoded sound starts at zero and has no gap, as from a plain MP4.
# Behaviour: with B-frames in the video, the first sound frame is stamped 0 and the second 80 ms, though a frame holds
#   21.3 ms: a hole of 58.7 ms that was never recorded. The video starts at 80 ms. A reader that joins the decoded
#   frames places all later sound 58.7 ms before its time stamps. With the movflag delay_moov there is no hole.
# Why it matters to a user of this field: 58.7 ms is one and a half frames of lip motion at 25 fps, enough to train an
#   audio-driven head out of sync. Place sound by its time stamps.
# Versions: av (PyAV) 18.1.0 with its bundled FFmpeg, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check av==18.1.0 numpy==1.26.4

venv/bin/python - <<'EOF'
from fractions import Fraction

import av
import numpy as np

RATE, FPS, SECONDS = 48000, 25, 2


def write(path, movflags):
    """Two seconds of grey frames with two B-frames, and a tone."""
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(RATE * SECONDS) / RATE).astype(np.float32)[None]
    with av.open(path, "w", options={"movflags": movflags} if movflags else {}) as file:
        video = file.add_stream("libx264", rate=FPS, options={"bf": "2"})
        video.width, video.height, video.pix_fmt = 128, 128, "yuv420p"
        audio = file.add_stream("aac", rate=RATE, layout="mono")
        sent = 0
        for index in range(FPS * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.full((128, 128, 3), 5 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            file.mux(video.encode(frame))
            while sent < (index + 1) * RATE // FPS:
                sound = av.AudioFrame.from_ndarray(tone[:, sent : sent + 1024], format="fltp", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = RATE, sent, Fraction(1, RATE)
                file.mux(audio.encode(sound))
                sent += 1024
        file.mux(video.encode(None))
        file.mux(audio.encode(None))


def hole(path):
    """Milliseconds between the end of the first sound frame and the start of the second."""
    with av.open(path) as file:
        first, second = [frame for frame, _ in zip(file.decode(audio=0), range(2))]
    return 1000 * float(second.time - first.time - first.samples / RATE)


holes = {}
for movflags in ("", "frag_keyframe+empty_moov", "frag_keyframe+empty_moov+delay_moov"):
    write("clip.mp4", movflags)
    holes[movflags] = hole("clip.mp4")
    print(f"movflags {movflags or '(none)'}: hole behind the first sound frame {holes[movflags]:.1f} ms")

plain, fragmented, delayed = holes.values()
if not (abs(plain) < 0.1 and abs(delayed) < 0.1 and abs(fragmented - 58.67) < 0.1):
    raise SystemExit("Changed: the fragmented MP4 has no hole of 58.7 ms behind its first sound frame.")
EOF
