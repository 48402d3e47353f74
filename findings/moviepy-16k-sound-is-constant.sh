#!/usr/bin/env bash
# Guess: AudioFileClip(...).to_soundarray(fps=16000) gives the sound at 16 kHz.
# Behaviour: for sound at 44.1 or 48 kHz of nearly any length (1.5, 2, 3, 5, 20 s) every sample of the array has one and the
#   same value, that of the sound at 1.0 s; after silence there it is all zeros. There is no error and no warning; shape and
#   length are right. At 44.1 kHz, and by chance at 4 s, it works. A part that covers more than half of the reader's
#   buffer is read at the times "false" and "true" (0 s and 1 s). Small blocks, buffersize=2000, read right.
# Why it matters to a user of this field: 16 kHz is what Whisper, wav2vec2, HuBERT and SyncNet hear, and this call is how scripts
#   get the sound of a talking clip (also as VideoFileClip(...).audio) without a file in between. Features of silence train
#   and drive a mouth without complaint.
# Versions: moviepy 2.2.1, imageio-ffmpeg 0.8.1, numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check moviepy==2.2.1 imageio-ffmpeg==0.8.1 numpy==1.26.4

venv/bin/python -W ignore - <<'EOF'
import wave

import numpy as np
from moviepy import AudioFileClip


def values(seconds, **options):
    """Number of different samples that a clip of noise of this length has at 16 kHz."""
    noise = (3000 * np.random.default_rng(0).normal(size=int(44100 * seconds))).astype("<i2")
    with wave.open("noise.wav", "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(noise.tobytes())
    clip = AudioFileClip("noise.wav")
    samples = clip.to_soundarray(fps=16000, **options)[:, 0]
    clip.close()
    assert abs(len(samples) - 16000 * seconds) <= 1
    return len(np.unique(samples))


lengths = (1.5, 2, 3, 5, 20)
whole = {seconds: values(seconds) for seconds in lengths}
blocks = {seconds: values(seconds, buffersize=2000) for seconds in lengths}
for seconds in lengths:
    print(f"{seconds:>4} s of noise: {whole[seconds]} different samples; with buffersize=2000: {blocks[seconds]}")
if not (all(count == 1 for count in whole.values()) and all(count > 5000 for count in blocks.values())):
    raise SystemExit("Changed: to_soundarray(fps=16000) gives the clip's sound.")
EOF
