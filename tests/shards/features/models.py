"""Speech encoders of a few thousand random weights, saved as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}
SMALL_WHISPER = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": 50,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
}


def convolutional(folder: Path, kind: str, dtype: str = "float32", **changes: Any) -> Path:
    """A wav2vec2, hubert or wavlm of 2 layers with the usual strides."""
    import torch
    import transformers

    torch.manual_seed(0)
    name = {"wav2vec2": "Wav2Vec2", "hubert": "Hubert", "wavlm": "WavLM"}[kind]
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **changes})
    getattr(transformers, f"{name}Model")(config).to(getattr(torch, dtype)).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": True}))
    return folder


def whisper(folder: Path, dtype: str = "float32", *, captions: bool = False, **changes: Any) -> Path:
    """A Whisper of 2 + 1 layers; ``captions``: as the hub has them, with the head that writes text."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperModel

    torch.manual_seed(0)
    kind = WhisperForConditionalGeneration if captions else WhisperModel
    model = kind(WhisperConfig(**{**SMALL_WHISPER, **changes}))
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder


def without(folder: Path, *names: str) -> Path:
    """The checkpoint without some of its tensors (those whose names contain one of ``names``)."""
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    state = {key: value for key, value in load_file(path).items() if not any(name in key for name in names)}
    save_file(state, path, metadata={"format": "pt"})
    return folder
