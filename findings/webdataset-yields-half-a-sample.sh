#!/usr/bin/env bash
# Guess: WebDataset raises an error for a shard whose copy was cut short, as it does when the cut is inside a member.
# Behaviour: a cut at the end of a member is not noticed, though the end-of-archive blocks are missing. The last
#   sample arrives with the fields that were written before the cut, and the loop ends as if the shard were complete.
# Why it matters to a user of this field: a writer that is stopped between two members leaves such a shard. A picture
#   without its track then enters a batch, or fails far from the cause. Check the size or a checksum of a shard first.
# Versions: webdataset 1.0.2, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==1.26.4

venv/bin/python - <<'EOF'
import tarfile
from pathlib import Path

import webdataset

with webdataset.TarWriter("whole.tar") as writer:
    for key in ("000", "001", "002"):
        writer.write({"__key__": key, "jpg": b"picture" * 200, "npy": b"track" * 200})
data = Path("whole.tar").read_bytes()
with tarfile.open("whole.tar") as tar:
    last = tar.getmembers()[-1]


def read(size):
    """The fields of each sample of the first ``size`` bytes, or the error."""
    Path("cut.tar").write_bytes(data[:size])
    samples = webdataset.WebDataset("cut.tar", shardshuffle=False)
    try:
        return [sorted(name for name in sample if not name.startswith("_")) for sample in samples]
    except Exception as error:
        return type(error).__name__


whole, boundary, inside = read(len(data)), read(last.offset), read(last.offset_data + 10)
print(f"whole shard, {len(data)} bytes: {whole}")
print(f"cut behind a member, {last.offset} bytes: {boundary}")
print(f"cut inside a member, {last.offset_data + 10} bytes: {inside}")
both = ["jpg", "npy"]
if not (whole == [both] * 3 and boundary == [both, both, ["jpg"]] and inside == "ReadError"):
    raise SystemExit("Changed: WebDataset reports a shard that was cut between two members.")
EOF
