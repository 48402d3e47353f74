#!/usr/bin/env bash
# Guess: the Whisper features of kaldi-native-fbank (the front end of sherpa-onnx) are those of Whisper: the same
#   filters every 10 ms, so row k of the one is row k of the other.
# Behaviour: they are Whisper's features of the same sound moved by half a row. Row k is centred on 10 k + 5 ms, as in
#   Kaldi without snip_edges, and Whisper's row k on 10 k ms. Moved by 80 samples, both agree to 2e-7; as they are,
#   they differ by 0.06 on average for noise, on a scale whose whole range is 2.
# Why it matters to a user of this field: rows of Whisper's encoder drive lips. Training with one front end and running
#   the other in the product shifts the sound by 5 ms and hands the encoder other numbers than it was trained on, which
#   no comparison of shapes shows. Put 80 zeros in front of the samples.
# Versions: kaldi-native-fbank 1.23.0, transformers 5.23.0, numpy 1.26.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check kaldi-native-fbank==1.23.0 transformers==5.23.0 numpy==1.26.4

TRANSFORMERS_VERBOSITY=error venv/bin/python - <<'EOF'
import kaldi_native_fbank as knf
import numpy as np
from transformers import WhisperFeatureExtractor

RATE, ROWS, EDGE = 16000, 200, 5


def whisper(sound):
    """(200, 80) normalised log-mel rows of two seconds, by the extractor of transformers."""
    features = WhisperFeatureExtractor()(sound, sampling_rate=RATE, return_tensors="np").input_features[0]
    return features.T[:ROWS]


def kaldi(sound):
    """The same by kaldi-native-fbank: its rows are energies, and the rest is Whisper's own normalisation."""
    options = knf.WhisperFeatureOptions()
    options.frame_opts.dither = 0
    stream = knf.OnlineWhisperFbank(options)
    stream.accept_waveform(RATE, sound.tolist())
    stream.input_finished()
    energies = np.stack([stream.get_frame(row) for row in range(stream.num_frames_ready)])
    rows = np.log10(np.maximum(energies, 1e-10))
    return (np.maximum(rows, rows.max() - 8) + 4) / 4


noise = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE + 400)).astype(np.float32)
given = kaldi(noise[80 : 80 + 2 * RATE])
difference = {}
for moved in (-80, 0, 40, 80, 120):
    # What kaldi-native-fbank was given, begun `moved` samples later.
    reference = whisper(noise[80 + moved : 80 + moved + 2 * RATE])
    difference[moved] = np.abs(given - reference)[EDGE:-EDGE].mean()
    print(f"Whisper's rows of the sound begun {moved:4d} samples later: mean difference {difference[moved]:.2g}")

click = np.zeros(2 * RATE, np.float32)
click[RATE] = 1
centre = {}
for name, features in (("transformers", whisper(click)), ("kaldi-native-fbank", kaldi(click))):
    energy = (10 ** (4 * features - 4)).sum(1)
    centre[name] = (energy * np.arange(ROWS)).sum() / energy.sum()
    print(f"{name}: a click at 1 s lies at row {centre[name]:.2f}")
late = centre["transformers"] - centre["kaldi-native-fbank"]
if not (difference[80] < 1e-5 and difference[0] > 0.02 and abs(late - 0.5) < 0.01):
    raise SystemExit("Changed: the rows of kaldi-native-fbank are no longer half a row off Whisper's.")
EOF
