#!/usr/bin/env bash
# Guess: aiortc's MediaRecorder writes the frames of a track at the times that they carry: 25 frames/s, one every 40 ms.
# Behaviour: it opens the video stream at a fixed 30 frames/s, and H.264 then counts time in thirtieths of a second. Frames of 25
#   per second lie 33, 33, 33, 67, 33 ms apart, up to 13 ms from their time; at 24 per second 17 ms. There is no option for the
#   rate. (50 and 60 frames/s cannot be written.)
# Why it matters to a user of this field: 25 frames/s is the rate of most talking-head models, and aiortc what live ones are served
#   with. A recording judders although the stream did not, and a frame-by-frame comparison or a sync score by frame index and
#   sound time sees lips that jump by a third of a frame.
# Versions: aiortc 1.16.0, PyAV 18.1.0, numpy 1.26.4, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check aiortc==1.16.0 av==18.1.0 numpy==1.26.4

cat >record.py <<'EOF'
import asyncio
from fractions import Fraction

import av
import numpy as np
from aiortc.contrib.media import MediaRecorder
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack


class Head(MediaStreamTrack):
    """Three seconds of video, each frame stamped with its time as WebRTC does it, in 90 kHz."""

    kind = "video"

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate, self.sent = rate, 0
        self.ended = asyncio.Event()

    async def recv(self) -> av.VideoFrame:
        if self.sent == 3 * self.rate:
            self.ended.set()
            raise MediaStreamError
        frame = av.VideoFrame.from_ndarray(np.full((128, 128, 3), self.sent, np.uint8), format="rgb24")
        frame.pts, frame.time_base = self.sent * 90000 // self.rate, Fraction(1, 90000)
        self.sent += 1
        return frame


async def record(rate: int) -> np.ndarray:
    head, recorder = Head(rate), MediaRecorder("head.mp4")
    recorder.addTrack(head)
    await recorder.start()
    await head.ended.wait()
    await recorder.stop()
    with av.open("head.mp4") as container:
        return np.array([1000 * frame.time for frame in container.decode(video=0)])


errors = {}
for rate in (24, 25, 30):
    times = asyncio.run(record(rate))
    ideal = 1000 * np.arange(len(times)) / rate
    errors[rate] = np.abs(times - times[0] - ideal).max()
    steps = ", ".join(f"{step:.0f}" for step in np.diff(times)[:9])
    print(f"{rate} frames/s: {len(times)} frames, {steps} … ms apart; at most {errors[rate]:.1f} ms from their time")
if not (errors[30] < 1 and errors[25] > 12 and errors[24] > 12):
    raise SystemExit("Changed: MediaRecorder keeps the times of frames at 24 and 25 frames/s.")
EOF
venv/bin/python record.py
