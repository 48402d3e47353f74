#!/usr/bin/env bash
# Guess: cts / timescale of a sample that mp4box.js extracts is when it is shown, so pictures and sound of one MP4 share a clock.
# Behaviour: the times are those of the track, without its edit list. H.264 with B-frames, which x264 writes by default, begins two
#   frames into its track, and the edit list takes them off: in mp4box.js the first picture of a 25 frames/s clip is at 80 ms, the
#   sound at 0. FFmpeg and mediabunny show both at 0.
# Why it matters to a user of this field: mp4box.js is what pages feed WebCodecs from, to draw a head beside its source or to track a
#   face in the browser. Lips lag 80 ms behind the voice, at 30 frames/s 67; a test clip without B-frames, as
#   live encoders make them, shows nothing. Subtract the first media_time of the track's `edits`.
# Versions: mp4box 2.4.1, mediabunny 1.61.0 (npm), PyAV 18.1.0, numpy 1.26.4, Node 20, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check av==18.1.0 numpy==1.26.4
npm install --silent --no-audit --no-fund mp4box@2.4.1 mediabunny@1.61.0

cat >write.py <<'EOF'
import sys

import av
import numpy as np

path, rate, b_frames = sys.argv[1], int(sys.argv[2]), sys.argv[3]
with av.open(path, "w") as container:
    video = container.add_stream("libx264", rate=rate, options={} if b_frames == "default" else {"bf": b_frames})
    video.width = video.height = 128
    video.pix_fmt = "yuv420p"
    audio = container.add_stream("aac", rate=48000)
    audio.layout = "mono"
    for k in range(2 * rate):
        frame = av.VideoFrame.from_ndarray(np.full((128, 128, 3), 3 * k, np.uint8), format="rgb24")
        container.mux(video.encode(frame))
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 2 * 48000)).astype(np.float32)
    sound = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
    sound.sample_rate = 48000
    container.mux(audio.encode(sound))
    container.mux(video.encode(None))
    container.mux(audio.encode(None))
with av.open(path) as container:
    print(f"    FFmpeg:     video {1000 * next(container.decode(video=0)).time:.0f} ms", end=", ")
with av.open(path) as container:
    print(f"audio {1000 * next(container.decode(audio=0)).time:.0f} ms")
EOF
cat >read.mjs <<'EOF'
import { readFileSync } from 'node:fs';
import { createFile } from 'mp4box';
import { ALL_FORMATS, BufferSource, Input } from 'mediabunny';

const bytes = new Uint8Array(readFileSync(process.argv[2])).buffer;
const first = {};
const file = createFile();
file.onReady = ({ tracks }) => {
    for (const track of tracks) {
        file.setExtractionOptions(track.id, track.type, { nbSamples: 1e6 });
    }
    file.start();
};
file.onSamples = (id, type, samples) => {
    first[type] = 1000 * Math.min(...samples.map((sample) => sample.cts / sample.timescale));
};
file.appendBuffer(Object.assign(bytes.slice(0), { fileStart: 0 }));
file.flush();
console.log(`    mp4box.js:  video ${first.video.toFixed(0)} ms, audio ${first.audio.toFixed(0)} ms`);

const input = new Input({ formats: ALL_FORMATS, source: new BufferSource(bytes) });
const [video, audio] = [await input.getPrimaryVideoTrack(), await input.getPrimaryAudioTrack()];
const other = 1000 * (await video.getFirstTimestamp());
console.log(`    mediabunny: video ${other.toFixed(0)} ms, audio ${(1000 * (await audio.getFirstTimestamp())).toFixed(0)} ms`);
process.exit(Math.abs(first.video - first.audio - Number(process.argv[3])) < 1 && Math.abs(other) < 1 ? 0 : 1);
EOF

changed="Changed: mp4box.js gives pictures and sound of one file on one clock."
check() { # rate, B-frames, expected delay of the pictures
    echo "$1 frames/s, $2 B-frames"
    venv/bin/python write.py "clip.mp4" "$1" "$2"
    node read.mjs "clip.mp4" "$3" || { echo "$changed"; exit 1; }
}
check 25 default 80
check 30 default 66.7
check 25 0 0
