#!/usr/bin/env bash
# Guess: len(VideoReader) and get_frame_timestamp() of decord describe the frames that it returns.
# Behaviour: a clip that was cut without encoding (ffmpeg -ss 0.5 -c copy) keeps the frames from the last key frame on in the
#   file, and an edit list hides them. decord decodes what is shown (37 frames here) and counts all that are in the file
#   (50): the last 13 frames are copies of the last one, and the first frame has the time -0.52 s.
# Why it matters to a user of this field: talking-head corpora are cut from long videos in just this way, and many loaders read them
#   with decord. Up to a key-frame interval (often 10 s) of frozen face with no sound ends each clip, and whoever pairs frames
#   and sound by time is off by as much. A line on stderr, once, names "corrupted" frames; the file is intact.
# Versions: decord 0.6.0, imageio-ffmpeg 0.8.1, PyAV 18.1.0, numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check decord==0.6.0 imageio-ffmpeg==0.8.1 av==18.1.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import subprocess

import av
import decord
import imageio_ffmpeg
import numpy as np


def ffmpeg(*arguments, data=None):
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *arguments], input=data, check=True)


def number(picture):
    """The number of a frame, which its grey level states."""
    return round((float(picture.mean()) - 20) / 4)


frames = np.repeat((20 + 4 * np.arange(50)).astype(np.uint8), 64 * 64).tobytes()  # 2 s at 25 fps
raw = ("-f", "rawvideo", "-pix_fmt", "gray", "-s", "64x64", "-r", "25", "-i", "-")
ffmpeg(*raw, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "5", "full.mp4", data=frames)
ffmpeg("-ss", "0.5", "-i", "full.mp4", "-c", "copy", "cut.mp4")

reader = decord.VideoReader("cut.mp4")
found = [number(reader[k].asnumpy()) for k in range(len(reader))]
start = float(reader.get_frame_timestamp(0)[0])
with av.open("cut.mp4") as container:
    shown = [(frame.time, number(frame.to_ndarray(format="rgb24"))) for frame in container.decode(video=0)]
print(f"PyAV  : {len(shown)} frames, from {shown[0][0]:+.2f} s: {shown[0][1]} to {shown[-1][1]}")
print(f"decord: {len(reader)} frames, from {start:+.2f} s: {found}")
copies = len(found) - 1 - found.index(found[-1])
if not (len(shown) == 37 and len(reader) == 50 and found[:37] == [n for _, n in shown] and copies == 13 and start < -0.5):
    raise SystemExit("Changed: decord counts the frames that it decodes.")
EOF
