#!/usr/bin/env bash
# Guess: datasets' loader of WebDataset tars gives every member that some sample has, None where a sample lacks it, or refuses
#   tars whose samples differ.
# Behaviour: it refuses where the first five samples differ in their members. What differs behind the fifth it does not
#   look at: a member, or a key of the JSON, that only later samples have is left out of them without a word, streamed or not.
# Why it matters to a user of this field: shards of talking heads have optional members (a speech feature or a torso's track added
#   later, a consent in the JSON). They are lost, and the number of samples is right. Name them with features=.
# Versions: datasets 5.2.0, pyarrow 26.0.1, numpy 2.3.5, Python 3.11. Date: 2026-12-01.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 numpy==2.3.5

HF_HOME="$work/hf" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 venv/bin/python - <<'EOF'
import io
import json
import tarfile

import datasets
import numpy as np

datasets.disable_progress_bars()


def written(path, order):
    """Ten samples of a track; those from number 5 on have a style, too, and say who agreed."""
    with tarfile.open(path, "w") as tar:
        for number in order:
            members = {"json": json.dumps({"clip": number, **({"consent": "yes"} if number >= 5 else {})}).encode()}
            for name in ["track", *(["style"] if number >= 5 else [])]:
                data = io.BytesIO()
                np.save(data, np.full(4, number, np.float32))
                members[f"{name}.npy"] = data.getvalue()
            for name, data in members.items():
                entry = tarfile.TarInfo(f"{number:03d}.{name}")
                entry.size = len(data)
                tar.addfile(entry, io.BytesIO(data))
    return path


def found(path, streaming):
    """Samples, those with a style, and those with a consent."""
    rows = list(datasets.load_dataset("webdataset", data_files={"train": [path]}, split="train", streaming=streaming))
    styles = sum(row.get("style.npy") is not None for row in rows)
    return len(rows), styles, sum(row["json"].get("consent") is not None for row in rows)


five, fewer = written("five.tar", range(10)), written("fewer.tar", [0, 1, 2, 3, 9, 4, 5, 6, 7, 8])
seen = {}
for name, path in (("a style in samples 6 to 10", five), ("a style in samples 5 and 7 to 10", fewer)):
    for streaming in (False, True):
        try:
            seen[path, streaming] = found(path, streaming)
            what = "{} samples, {} with a style, {} with a consent".format(*seen[path, streaming])
        except ValueError as error:
            seen[path, streaming] = "refused"
            what = f"refused: {' '.join(str(error).split())}"
        print(f"{name}, {'streamed' if streaming else 'prepared'}: {what}")

# What the features name is there.
features = datasets.Features({"__key__": datasets.Value("string"), "style.npy": datasets.List(datasets.Value("float32"))})
rows = list(datasets.load_dataset("webdataset", data_files={"train": [five]}, split="train", features=features))
named = sum(row["style.npy"] is not None for row in rows)
print(f"a style in samples 6 to 10, with features=: {len(rows)} samples, {named} with a style")

lost = seen[five, False] == seen[five, True] == (10, 0, 0)
if not (lost and seen[fewer, False] == seen[fewer, True] == "refused" and named == 5):
    raise SystemExit("Changed: datasets keeps, or refuses, what only samples behind the fifth have.")
EOF
