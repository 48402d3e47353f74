"""Headstart's public API: the names that users import. The command line is :mod:`headstart.cli`.

``import headstart`` is cheap and has no side effects: every public name is imported from its room on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

from configs import runtime

__version__ = "0.1.0"

# Public name -> where it lives.
_PUBLIC = {
    "InputError": "configs:InputError",
    "rasterization": "heads:rasterization",
    "load_rig": "heads.rig:load_rig",
    "read_dataset": "shards.read.dataset:open_dataset",
    "build_dataset": "shards.build.build:build",
    "synthesize": "shards.synthetic:synthesize",
    "track_video": "shards.tracking:track_video",
    "pretrain_prior": "pretrain.train:pretrain",
    "load_prior": "pretrain:load_prior",
    "adapt_avatar": "adapt.job:adapt",
    "load_avatar": "adapt.avatar.avatar:load_avatar",
    "LiveSession": "adapt.live.session:LiveSession",
    "Talker": "adapt.talk.talker:Talker",
    "talk": "adapt.talk.talk:talk",
    "evaluate": "adapt.evaluate.evaluate:evaluate",
    "export": "adapt.export:export",
    "track": "adapt.track:track",
    "detect": "adapt.marking.detect:detect",
    "doctor": "headstart.installation:doctor",
    "main": "headstart.cli.app:main",
}

__all__ = ["__version__", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'headstart' has no attribute {name!r}; public names: {', '.join(sorted(_PUBLIC))}"
        )
    runtime.prepare()
    module, _, attribute = _PUBLIC[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return __all__
