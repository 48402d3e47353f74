#!/usr/bin/env bash
# Guess: a row of openSMILE's descriptors describes one moment, that of its index (start to end), in every column.
# Behaviour: each column has its own window, and all windows of row k begin at 10 k ms. In eGeMAPS loudness is centred
#   on 10 k + 10 ms and pitch, whose window is longer, on 10 k + 30 ms: 20 ms apart in one row, whose index says 10 k to
#   10 k + 20 ms for both. In ComParE the index says 60 ms, which is true of pitch and not of loudness and energy.
# Why it matters to a user of this field: pitch and loudness drive brows, head and emotion beside the lips. Interpolated
#   to video frames by the index, pitch comes half a frame (25 a second) before the loudness of the same syllable, and
#   in ComParE loudness comes late by as much. Give each column its own time before resampling.
# Versions: opensmile 2.6.0, numpy 2.3.5, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check opensmile==2.6.0 numpy==2.3.5

venv/bin/python - <<'EOF'
import numpy as np
import opensmile

RATE, SECONDS = 16000, 4


def swell(middle):
    """A voice whose pitch and loudness rise and fall symmetrically about `middle`, in seconds."""
    time = np.arange(SECONDS * RATE) / RATE
    shape = np.exp(-(((time - middle) / 0.15) ** 2))
    phase = 2 * np.pi * np.cumsum(120 + 60 * shape) / RATE
    voice = sum(np.sin(k * phase) / k for k in range(1, 20))
    return ((0.006 + 0.06 * shape) * voice).astype(np.float32)


def top(values):
    """The row, with fraction, about which the swell of one column is centred."""
    rise = np.clip(values - np.median(values[40:100]), 0, None)
    rise[:155] = rise[246:] = 0
    rise[rise < 0.2 * rise.max()] = 0
    return (rise * np.arange(len(rise))).sum() / rise.sum()


columns = {
    "eGeMAPSv02": {"loudness": "Loudness_sma3", "pitch": "F0semitoneFrom27.5Hz_sma3nz"},
    "ComParE_2016": {"loudness": "audspec_lengthL1norm_sma", "energy": "pcm_RMSenergy_sma", "pitch": "F0final_sma"},
}
middles = 2 + 0.001 * np.arange(0.5, 20, 4)
centre = {}
for features, names in columns.items():
    smile = opensmile.Smile(opensmile.FeatureSet[features], opensmile.FeatureLevel.LowLevelDescriptors)
    tables = [smile.process_signal(swell(middle), RATE) for middle in middles]
    start, end = (tables[0].index.get_level_values(level)[10].total_seconds() for level in ("start", "end"))
    print(f"{features}: by the index row 10 lasts from {1000 * start:.0f} to {1000 * end:.0f} ms")
    for what, name in names.items():
        off = [1000 * middle - 10 * top(table[name].to_numpy(float)) for middle, table in zip(middles, tables)]
        centre[features, what] = np.mean(off)
        print(f"  {what}: row k is centred on 10 k + {np.mean(off):.1f} ms")
apart = [centre[features, "pitch"] - centre[features, "loudness"] for features in columns]
if not all(abs(difference - 20) < 2 for difference in apart):
    raise SystemExit("Changed: pitch and loudness of one row are no longer 20 ms apart.")
EOF
