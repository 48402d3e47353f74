#!/usr/bin/env bash
# Guess: AudioSegment.set_frame_rate(16000) removes what 16 kHz cannot hold, as every resampler does.
# Behaviour: it interpolates linearly and filters nothing. From 48 kHz, tones of 9, 11 and 14 kHz come back at 7, 5 and 2 kHz
#   with their full level (0.0 dB), and so does the hiss of an s, whose energy lies above 8 kHz: it becomes noise in the
#   band of vowels.
# Why it matters to a user of this field: many scripts bring the sound of talking-head clips to 16 kHz with pydub before
#   log-mel, Whisper or SyncNet. Sibilants then look like open vowels to whatever moves the lips, and training and use differ
#   if only one of them takes this way. Resample with soxr, ffmpeg or librosa.
# Versions: pydub 0.25.1, numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pydub==0.25.1 numpy==1.26.4

venv/bin/python -W ignore - <<'EOF'
import numpy as np
from pydub import AudioSegment


def resampled(sound):
    """16 kHz of sound at 48 kHz, both in [-1, 1]."""
    pcm = (sound * 32767).astype("<i2").tobytes()
    segment = AudioSegment(pcm, frame_rate=48000, sample_width=2, channels=1).set_frame_rate(16000)
    return np.array(segment.get_array_of_samples()) / 32767


def level(sound):
    return 20 * np.log10(np.sqrt(np.mean(sound**2)))


time, folded = np.arange(48000) / 48000, []
for hz in (9000, 11000, 14000):
    tone = 0.5 * np.sin(2 * np.pi * hz * time)
    found = resampled(tone)
    peak = np.abs(np.fft.rfft(found * np.hanning(len(found)))).argmax()
    change = level(found) - level(tone)
    print(f"tone of {hz} Hz: {change:+.1f} dB, heard at {peak} Hz")
    folded.append(peak == 16000 - hz and abs(change) < 0.5)

spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=48000))
hz = np.fft.rfftfreq(48000, 1 / 48000)
hiss = np.fft.irfft(np.where((hz > 8500) & (hz < 15000), spectrum, 0))  # nothing that 16 kHz can hold
hiss *= 0.1 / hiss.std()
change = level(resampled(hiss)) - level(hiss)
print(f"hiss from 8.5 to 15 kHz: {change:+.1f} dB")
if not (all(folded) and abs(change) < 0.5):
    raise SystemExit("Changed: set_frame_rate() removes what the new rate cannot hold.")
EOF
