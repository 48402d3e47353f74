#!/usr/bin/env bash
# Guess: AudioFile reads an MP3 as every other reader does: without the encoder's padding, in step with the video it belongs to.
# Behaviour: it keeps the silence that the encoder put in front and behind. A file that pedalboard itself has written comes back
#   69 ms late and 80 ms longer at 16 kHz, 25 ms late at 44.1 kHz and 23 ms at 48 kHz. Other readers heed the header in which the
#   file states its padding, and return the sound at its place.
# Why it matters to a user of this field: voices are augmented and stored with pedalboard because it is fast. At 16 kHz, speech from
#   an MP3 trails the lips by nearly two frames of 25 fps, which is what a sync expert is trained to reject. WAV, FLAC and Ogg do not.
# Versions: pedalboard 0.9.26, miniaudio 1.71, numpy 2.4.6, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pedalboard==0.9.26 miniaudio==1.71 numpy==2.4.6

venv/bin/python - <<'EOF'
import miniaudio
import numpy as np
from pedalboard.io import AudioFile


def lag(sound, real, rate):
    """Milliseconds by which the one burst of ``real`` is late in ``sound``."""
    count = min(len(sound), len(real))
    correlation = np.correlate(sound[:count], real[:count], "full")
    return 1000 * (int(correlation.argmax()) - (count - 1)) / rate


late = {}
for rate in (16_000, 44_100, 48_000):
    burst = np.zeros(rate, np.float32)  # a second, with 50 ms of a tone in the middle
    count = rate // 20
    tone = np.sin(2 * np.pi * 500 * np.arange(count) / rate) * np.hanning(count) * 0.5
    burst[rate // 2 : rate // 2 + count] = tone
    with AudioFile("burst.mp3", "w", rate, 1) as file:
        file.write(burst)
    with AudioFile("burst.mp3") as file:
        pedal = file.read(file.frames)[0]
    form = miniaudio.SampleFormat.FLOAT32
    mini = np.array(miniaudio.decode_file("burst.mp3", nchannels=1, sample_rate=rate, output_format=form).samples)
    late[rate] = lag(pedal, burst, rate), lag(mini, burst, rate)
    print(f"{rate} Hz, {len(burst)} samples written")
    print(f"  pedalboard reads {len(pedal)}, {late[rate][0]:.1f} ms late")
    print(f"  miniaudio reads  {len(mini)}, {late[rate][1]:.1f} ms late")
if not (late[16_000][0] > 60 and late[48_000][0] > 20 and all(abs(mini) < 1 for _, mini in late.values())):
    raise SystemExit("Changed: pedalboard reads an MP3 in step, as miniaudio does.")
EOF
