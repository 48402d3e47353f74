#!/usr/bin/env bash
# Guess: imageio.v3.imread(clip, index=k, plugin="pyav") returns the frame that is number k when the clip is read
#   through.
# Behaviour: it computes a time from k and the average frame rate and seeks there. In an MP4 whose frame times vary,
#   as phones write when they drop frames, it returns another frame: 36 for index 42. If the picture starts late, every
#   index is off. constant_framerate=False gives the right frame; the MP4 format is assumed to have a constant rate.
# Why it matters to a user of this field: tracks, masks and sound rows are numbered by decoded frame. A head is then
#   fitted to pictures that belong to other expressions, and only the lips betray it.
# Versions: imageio 2.38.1, av (PyAV) 18.1.0, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check imageio==2.38.1 av==18.1.0 numpy==1.26.4

venv/bin/python - <<'EOF'
from fractions import Fraction

import av
import imageio.v3 as iio
import numpy as np


def write(path, milliseconds):
    """Frames at these times; frame k has the grey level 20 + 4 k."""
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=30, options={"crf": "4", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for index, time in enumerate(milliseconds):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 + 4 * index, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def compare(name, path, wanted=(14, 21, 28, 42)):
    levels = np.array([picture.mean() for picture in iio.imiter(path, plugin="pyav")])

    def number(index, **options):
        picture = iio.imread(path, index=index, plugin="pyav", **options)
        return int(np.abs(levels - picture.mean()).argmin())

    guessed = [number(index) for index in wanted]
    exact = [number(index, constant_framerate=False) for index in wanted]
    print(f"{name}: index {list(wanted)} returns frame {guessed}; with constant_framerate=False {exact}")
    if exact != list(wanted):
        raise SystemExit("Changed: constant_framerate=False no longer returns the frame of that number.")
    return guessed == list(wanted)


write("even.mp4", [40 * k for k in range(50)])
write("phone.mp4", np.cumsum([0] + [66 if k % 5 == 0 else 33 for k in range(49)]).tolist())
write("late.mp4", [400 + 40 * k for k in range(50)])
even = compare("constant rate", "even.mp4")
phone = compare("every fifth frame late", "phone.mp4")
late = compare("picture starts at 400 ms", "late.mp4")
if not (even and not phone and not late):
    raise SystemExit("Changed: imageio returns the frame of that number in a clip of varying frame times.")
EOF
