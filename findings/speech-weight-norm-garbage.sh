#!/usr/bin/env bash
# Guess: a wav2vec2 file whose positional convolution holds a plain "weight" (weight normalisation fused, as exporters
#   do) loads into transformers: the weight is taken as it is, or it is initialised freshly like any missing weight.
# Behaviour: the weight is reported as unexpected, and the two factors of the normalisation (original0, original1) are
#   left as uninitialised memory, so the output is NaN or far off. The load report says "newly initialized" all the
#   same, and no error is raised.
# Why it matters to a user of this field: loading succeeds, and the speech encoder's NaN shows deep inside an
#   audio-driven head. Treat missing keys as an error (output_loading_info=True tells them).
# Versions: transformers 5.23.0, torch 2.13.0, safetensors 0.8.0, numpy 1.26.4, Python 3.11. Date: 2026-11-29.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
    transformers==5.23.0 torch==2.13.0 safetensors==0.8.0 numpy==1.26.4

venv/bin/python - <<'EOF'
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2Config, Wav2Vec2Model

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
small |= {"conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
torch.manual_seed(0)
model = Wav2Vec2Model(Wav2Vec2Config(**small)).eval()
model.save_pretrained("encoder")

weights = load_file("encoder/model.safetensors")
prefix = "encoder.pos_conv_embed.conv."
factors = [prefix + "parametrizations.weight." + name for name in ("original0", "original1")]
magnitude, direction = (weights.pop(name) for name in factors)
fused = magnitude * direction / direction.norm(dim=(0, 1), keepdim=True)
difference = (fused - model.encoder.pos_conv_embed.conv.weight).abs().max()
weights[prefix + "weight"] = fused.contiguous()
save_file(weights, "encoder/model.safetensors", metadata={"format": "pt"})
print(f"the fused weight equals the model's: largest difference {difference:.1e}")

sound = torch.randn(1, 16000)
expected = model(sound).last_hidden_state
wrong, seen = 0, []
for attempt in range(5):
    scratch = [torch.full((20000,), float(attempt)) for _ in range(50)]  # what an earlier computation leaves in memory
    del scratch
    loaded, info = Wav2Vec2Model.from_pretrained("encoder", output_loading_info=True)
    convolution = loaded.encoder.pos_conv_embed.conv.parametrizations.weight
    finite = all(torch.isfinite(p).all() for p in convolution.parameters())
    largest = max(p.abs().nan_to_num(posinf=float("inf")).max().item() for p in convolution.parameters())
    output = loaded.eval()(sound).last_hidden_state
    wrong += bool(torch.isnan(output).any() or (output - expected).abs().max() > 0.1)
    seen.append(torch.cat([p.flatten() for p in convolution.parameters()]))
    has_nan = bool(torch.isnan(output).any())
    print(f"load {attempt}: factors finite {finite}, largest {largest:.1e}, NaN in the output {has_nan}")
missing = sorted(info["missing_keys"])
print("missing:", missing)
# A fresh initialisation has positive, ordinary magnitudes; memory has zeros, tiny, huge or NaN values.
ordinary = [bool(torch.isfinite(v).all() and 1e-4 < v.abs().mean() < 1e2) for v in seen]
if not (set(missing) == set(factors) and wrong == 5 and difference < 1e-5 and not all(ordinary)):
    raise SystemExit("Changed: transformers loads a fused weight, or initialises the factors properly.")
EOF
