#!/usr/bin/env bash
# Guess: an FFmpeg filter that cleans or clarifies speech gives sound that lies where it lay: as many samples, the same time stamps.
# Behaviour: there are as many samples and the first has time 0, but the sound in them is later: by 25 ms after afftdn, 32 ms
#   after dialoguenhance, 8 ms after anlmdn, 5 ms after alimiter, and 85 ms after superequalizer at 48 kHz. What these filters
#   need to look ahead is left in at the start and cut off at the end. loudnorm, speechnorm, dynaudnorm and highpass are exact.
# Why it matters to a user of this field: recordings are denoised before lips are trained on them. 25 ms is more than half a frame
#   at 25 frames/s, all clips are off to the same side, and a clip whose start and length fit looks right. Cut the delay off and
#   append silence before the filter. (alimiter alone has an option for it, latency=1.)
# Versions: PyAV 18.1.0 (FFmpeg 8), numpy 1.26.4, Python 3.11. Date: 2026-12-01.
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

rate, seconds = 48000, 3
generator = np.random.default_rng(0)
sound = np.zeros(rate * seconds, np.float32)
for start in (0.5, 1.0, 1.7, 2.3):  # four bursts of noise, 100 ms each
    burst = np.hanning(rate // 10) * generator.normal(0, 0.2, rate // 10)
    sound[int(start * rate) :][: rate // 10] = burst
form = "sample_fmt=flt:channel_layout=mono"


def filtered(name, options):
    """What the filter returns, and the time of its first sample."""
    graph = av.filter.Graph()
    source = graph.add("abuffer", f"sample_rate={rate}:{form}:time_base=1/{rate}")
    chain = [source, graph.add(name, options) if options else graph.add(name)]
    chain.append(graph.add("aformat", f"sample_fmts=flt:sample_rates={rate}:channel_layouts=mono"))
    chain.append(graph.add("abuffersink"))
    for one, following in zip(chain, chain[1:]):
        one.link_to(following)
    graph.configure()
    frames = []

    def pull():
        while True:
            try:
                frames.append(graph.pull())
            except (av.BlockingIOError, av.EOFError):
                return

    for at in range(0, len(sound), 1024):
        frame = av.AudioFrame.from_ndarray(sound[None, at : at + 1024], format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
        graph.push(frame)
        pull()
    graph.push(None)
    pull()
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), frames[0].time


def late(heard):
    """By how many milliseconds it lags behind ``sound``: the place of the peak of their cross-correlation."""
    size = 2 * rate * seconds
    match = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sound, size)))
    peak = int(match.argmax())
    return 1000 * (peak if peak < size // 2 else peak - size) / rate


delays = {}
exact = ("loudnorm", "speechnorm", "dynaudnorm", "highpass")
for name, options in [(name, "") for name in exact] + [
    ("afftdn", ""), ("dialoguenhance", ""), ("anlmdn", ""), ("alimiter", ""), ("alimiter", "latency=1"), ("superequalizer", "")
]:
    heard, first = filtered(name, options)
    delays[name, options] = late(heard)
    samples = f"{len(heard) - len(sound):+d} samples, first at {first:.3f} s"
    print(f"{' '.join((name, options)):20} {samples}, sound {delays[name, options]:+.1f} ms late")
quiet = all(abs(delays[name, ""]) < 1 for name in exact)
if not (quiet and abs(delays["afftdn", ""] - 25) < 1 and abs(delays["dialoguenhance", ""] - 32) < 1):
    raise SystemExit("Changed: FFmpeg's filters for speech leave the sound in its place.")
EOF
