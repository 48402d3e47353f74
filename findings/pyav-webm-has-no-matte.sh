#!/usr/bin/env bash
# Guess: a video that PyAV wrote with an alpha channel comes back from PyAV with one, as ProRes 4444 and FFV1 do.
# Behaviour: VP9 in WebM comes back as yuv420p, and to_ndarray(format="rgba") gives 255 everywhere, without an error or a
#   warning. The matte is in the file, as side data of the packets that FFmpeg's own VP9 decoder does not read; the stream's
#   metadata says alpha_mode 1. Decoding the same packets with libvpx-vp9, which PyAV's wheel holds, returns it exactly.
# Why it matters to a user of this field: WebM with alpha is how browsers show a person without background, so matted clips and
#   avatars' videos are stored so. Read by default they are people before whatever colour lies below the matte, and a mask
#   from their alpha is the whole frame. Check alpha_mode, and decode with av.CodecContext.create("libvpx-vp9", "r").
# Versions: av 18.1.0, numpy 2.3.5, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check av==18.1.0 numpy==2.3.5

venv/bin/python - <<'EOF'
import av
import numpy as np

picture = np.zeros((64, 64, 4), np.uint8)
picture[..., 0] = 200
picture[16:48, 16:48, 3] = 255  # the person


def write(path, codec):
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuva420p"
        for number in range(5):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="yuva420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def share(frame):
    """Pixels that are opaque."""
    return (frame.to_ndarray(format="rgba")[..., 3] == 255).mean()


def by_default(path):
    with av.open(path) as container:
        return next(container.decode(video=0)), dict(container.streams.video[0].metadata)


def by_libvpx(path):
    decoder = av.CodecContext.create("libvpx-vp9", "r")
    with av.open(path) as container:
        return next(frame for packet in container.demux(video=0) for frame in decoder.decode(packet))


write("person.mkv", "ffv1")
write("person.webm", "libvpx-vp9")
kept, _ = by_default("person.mkv")
lost, metadata = by_default("person.webm")
found = by_libvpx("person.webm")
print(f"written: {(picture[..., 3] == 255).mean():.2f} of the picture is opaque")
print(f"FFV1: {kept.format.name}, {share(kept):.2f}")
print(f"VP9, alpha_mode {metadata.get('alpha_mode')}: {lost.format.name}, {share(lost):.2f}")
print(f"VP9 by libvpx-vp9: {found.format.name}, {share(found):.2f}")
if not (share(kept) == share(found) == 0.25 and share(lost) == 1 and metadata.get("alpha_mode") == "1"):
    raise SystemExit("Changed: PyAV reads the alpha channel of VP9 by default, or no longer with libvpx-vp9.")
EOF
