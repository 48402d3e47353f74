#!/usr/bin/env bash
# Guess: an ONNX file holds a graph and its weights, and says nothing about the machine that wrote it.
# Behaviour: torch.onnx.export writes a stack trace into every node: absolute paths of the user's own source files, line
#   numbers and lines of code, beside class names. With small networks that is a third or more of the file, and neither
#   optimize=True nor verbose=False leaves it out.
# Why it matters to a user of this field: a prior or encoder is exported to be published. The file then carries home folders
#   (and with them login names) and source of a private project. Deleting metadata_props of every node removes it.
# Versions: torch 2.13.0, onnx 1.22.0, onnxscript 0.7.2, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 onnx==1.22.0 onnxscript==0.7.2 numpy==1.26.4

mkdir -p private/home
cat >private/home/secret_network.py <<'EOF'
import torch
from torch import nn


class SecretNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True) for _ in range(4))

    def forward(self, rows):
        for layer in self.layers:
            rows = layer(rows) + 0.5  # a line of private code
        return rows


def export(path):
    program = torch.onnx.export(
        SecretNetwork().eval(), (torch.zeros(1, 8, 32),), dynamo=True, optimize=True, verbose=False
    )
    program.save(path)
EOF
cat >check.py <<'EOF'
import os
import sys

import onnx

sys.path.insert(0, "private/home")
from secret_network import export

export("network.onnx")
content = open("network.onnx", "rb").read()
found = [text for text in (os.path.abspath("private/home/secret_network.py"), "a line of private code", "SecretNetwork")
         if text.encode() in content]
model = onnx.load("network.onnx")
for node in model.graph.node:
    del node.metadata_props[:]
stripped = len(model.SerializeToString())
print("in the file:", *found, sep="\n  ")
print(f"{len(content)} bytes, {stripped} without the nodes' metadata")
if len(found) < 3:
    raise SystemExit("Changed: torch.onnx.export no longer writes paths and source into the file.")
EOF
venv/bin/python check.py 2>/dev/null | grep -v "^\[torch.onnx\]"
