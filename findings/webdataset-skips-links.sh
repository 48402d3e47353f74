#!/usr/bin/env bash
# Guess: WebDataset reads a tar that GNU tar made of a sample folder, or complains about a member it cannot read.
# Behaviour: hard-linked files are stored by GNU tar as links without data, and WebDataset skips a link in silence.
#   The sample arrives without that field. tarfile.extractfile() and tar itself do follow such links.
# Why it matters to a user of this field: data sets share one file among samples by hard links: a calibration, a
#   neutral face, a still that repeats. Each use but the first is missing, and code with optional fields trains on
#   without it. Make tars with --hard-dereference.
# Versions: webdataset 1.0.2, numpy 1.26.4, Python 3.11, GNU tar. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==1.26.4

mkdir samples
for key in 000 001 002; do
    printf 'frame %s' "$key" >"samples/$key.bin"
done
printf '{"focal": 2.0}' >samples/000.json
ln samples/000.json samples/001.json
ln samples/000.json samples/002.json
tar --sort=name -C samples -cf linked.tar 000.bin 000.json 001.bin 001.json 002.bin 002.json
tar --sort=name --hard-dereference -C samples -cf copied.tar 000.bin 000.json 001.bin 001.json 002.bin 002.json

venv/bin/python - <<'EOF'
import tarfile

import webdataset


def fields(path):
    samples = webdataset.WebDataset(path, shardshuffle=False)
    return [sorted(name for name in sample if not name.startswith("_")) for sample in samples]


linked, copied = fields("linked.tar"), fields("copied.tar")
with tarfile.open("linked.tar") as tar:
    readable = [tar.extractfile(name).read().decode() for name in ("001.json", "002.json")]
print("tar with links:       ", linked)
print("tar with copies:      ", copied)
print("tarfile reads the links:", readable)
both = ["bin", "json"]
if not (linked == [both, ["bin"], ["bin"]] and copied == [both] * 3 and all("focal" in text for text in readable)):
    raise SystemExit("Changed: WebDataset follows linked members, or reports them.")
EOF
