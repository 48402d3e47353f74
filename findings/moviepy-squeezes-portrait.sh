#!/usr/bin/env bash
# Guess: VideoFileClip shows a phone's portrait clip upright or on its side, in its proportions.
# Behaviour: neither: the clip says that it is 320x180, and its frames are the upright picture of 180x320 squeezed into that. Faces
#   are 3.2 times as wide as they are high. moviepy reads the rotation from a line that its ffmpeg (of imageio-ffmpeg) now words
#   differently, so clip.rotation is 0, while that ffmpeg still turns the pictures and scales them to the size that moviepy asks for.
# Why it matters to a user of this field: phones store portrait video as landscape with a rotation. Crops, landmarks and written
#   videos of such clips have squeezed heads, in which face trackers still find a face.
# Versions: moviepy 2.2.1, imageio-ffmpeg 0.8.1, numpy 2.4.6, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check moviepy==2.2.1 imageio-ffmpeg==0.8.1 numpy==2.4.6

venv/bin/python - <<'EOF'
import subprocess

import imageio_ffmpeg
import numpy as np
from moviepy import VideoFileClip


def ffmpeg(*words):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", *words]
    return subprocess.run(command, check=True, capture_output=True).stdout


ffmpeg("-f", "lavfi", "-i", "testsrc=s=320x180:r=25:d=1", "-c:v", "libx264", "-pix_fmt", "yuv420p", "plain.mp4")
ffmpeg("-display_rotation", "90", "-i", "plain.mp4", "-c", "copy", "phone.mp4")
with VideoFileClip("phone.mp4") as clip:
    size, rotation, frame = tuple(clip.size), clip.rotation, clip.get_frame(0).astype(float)


def picture(width, height):
    raw = ffmpeg("-i", "phone.mp4", "-frames:v", "1", "-s", f"{width}x{height}", "-f", "rawvideo", "-pix_fmt", "rgb24", "-")
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3).astype(float)


upright = ffmpeg("-i", "phone.mp4", "-frames:v", "1", "-f", "image2pipe", "-c:v", "ppm", "-").split()[1:3]
print("ffmpeg shows the clip as :", b"x".join(upright).decode())
print("moviepy's size, rotation :", size, rotation)
print("moviepy's frame          :", frame.shape)
squeezed = float(np.abs(frame - picture(320, 180)).mean()) if frame.shape == (180, 320, 3) else None
print("difference to the upright picture squeezed into 320x180:", squeezed)
if not (upright == [b"180", b"320"] and size == (320, 180) and squeezed is not None and squeezed < 1):
    raise SystemExit("Changed: moviepy keeps the proportions of a portrait clip.")
EOF
