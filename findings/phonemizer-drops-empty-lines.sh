#!/usr/bin/env bash
# Guess: phonemize() of a list of n lines returns n lines.
# Behaviour: empty lines are left out, so the result is shorter than the input, and from there on every line belongs to another
#   text. Lines of punctuation alone stay, as empty strings. preserve_empty_lines=True keeps the list's length.
# Why it matters to a user of this field: transcripts of a clip's segments go through phonemize() as one list, and a segment in
#   which nobody speaks has an empty transcript. With zip(segments, phonemes) the visemes of every later segment move forward by
#   one, and the last has none.
# Versions: phonemizer 3.4.0, espeakng-loader 0.2.4, Python 3.11. Date: 2026-11-30.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check phonemizer==3.4.0 espeakng-loader==0.2.4

venv/bin/python - <<'EOF'
import espeakng_loader
from phonemizer import phonemize
from phonemizer.backend.espeak.wrapper import EspeakWrapper

EspeakWrapper.set_library(espeakng_loader.get_library_path())
EspeakWrapper.set_data_path(espeakng_loader.get_data_path())

segments = ["hello there", "", "good morning", "...", "see you"]


def phonemes(**options):
    return [line.strip() for line in phonemize(segments, language="en-us", backend="espeak", **options)]


plain, kept = phonemes(), phonemes(preserve_empty_lines=True)
print("segments                 :", segments)
print("phonemize()              :", plain)
print("preserve_empty_lines=True:", kept)
if not (len(plain) == 4 and plain[1] == kept[2] and len(kept) == 5 and kept[1] == ""):
    raise SystemExit("Changed: phonemize() returns a line for every line.")
EOF
