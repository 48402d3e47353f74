#!/usr/bin/env bash
# Guess: wav2vec2 and HuBERT give 50 rows a second, row k is centred on 20 k + 10 ms, and 2 s give 100 rows.
# Behaviour: the convolutions see 400 samples every 320 without padding. Row k is centred on 20 k + 12.5 ms, and 2 s
#   give 99 rows: the last 17.5 ms lie behind the 20 ms of the last row. Measured by gradients on models made from a
#   config.
# Why it matters to a user of this field: pairing rows 2 t and 2 t + 1 with video frame t shifts the sound by 2.5 ms
#   and leaves the last frame one row; a clip cut into windows loses a row per window. 40 samples of silence in front
#   and 40 behind make two rows a frame exact.
# Versions: transformers 5.23.0, torch 2.13.0, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check transformers==5.23.0 torch==2.13.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2Config, Wav2Vec2Model

small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
small |= {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
small |= {"feat_extract_norm": "layer"}  # no statistics over time, so that a gradient shows the receptive field
SAMPLES = 32000  # 2 s at 16 kHz


def measure(model):
    """The number of rows of 2 s, and the centres in ms of the first, the eleventh and the last."""
    sound = torch.randn(1, SAMPLES, generator=torch.Generator().manual_seed(0), requires_grad=True)
    rows = model.eval().feature_extractor(sound)  # [1, channels, rows]
    centres = []
    for index in (0, 10, rows.shape[2] - 1):
        (gradient,) = torch.autograd.grad(rows[0, :, index].sum(), sound, retain_graph=True)
        seen = gradient[0].nonzero().flatten()
        centres.append((int(seen[0]) + int(seen[-1]) + 1) / 2 / 16)
    return model(sound.detach()).last_hidden_state.shape[1], centres


as_stated = True
for model in (Wav2Vec2Model(Wav2Vec2Config(**small)), HubertModel(HubertConfig(**small))):
    rows, centres = measure(model)
    print(f"{type(model).__name__}: {rows} rows of 2 s; rows 0, 10 and {rows - 1} are centred on {centres} ms")
    as_stated &= rows == 99 and centres == [12.5, 212.5, 1972.5]

padded = Wav2Vec2Model(Wav2Vec2Config(**small))._get_feat_extract_output_lengths(torch.tensor(SAMPLES + 80))
print(f"with 40 samples of silence on both sides: {int(padded)} rows")
if not (as_stated and int(padded) == 100):
    raise SystemExit("Changed: the rows of these speech models have other centres or another count.")
EOF
