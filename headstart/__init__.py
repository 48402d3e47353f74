"""Headstart's public API: the names that users import. The command line is :mod:`headstart.cli`.

``import headstart`` is cheap and has no side effects: every public name is imported from its room on first use.
"""

from __future__ import annotations

# ruff: noqa: F401, imported for type checkers; the names are those of _PUBLIC
import functools
import importlib
import inspect
from typing import TYPE_CHECKING, Any

from configs import runtime
from configs.arguments import checked

if TYPE_CHECKING:  # what type checkers and editors see of the names below
    from adapt.avatar.avatar import load_avatar as load_avatar
    from adapt.evaluate.evaluate import evaluate as evaluate
    from adapt.export import export as export
    from adapt.job import adapt as adapt_avatar
    from adapt.live.session import LiveSession as LiveSession
    from adapt.marking.detect import detect as detect
    from adapt.talk.talk import talk as talk
    from adapt.talk.talker import Talker as Talker
    from adapt.track import track as track
    from configs import InputError as InputError
    from heads import rasterization as rasterization
    from heads.rig import load_rig as load_rig
    from headstart.cli.app import main as main
    from headstart.installation import doctor as doctor
    from pretrain import load_prior as load_prior
    from pretrain.train import pretrain as pretrain_prior
    from shards.build.build import build as build_dataset
    from shards.read.dataset import open_dataset as read_dataset
    from shards.synthetic import synthesize as synthesize
    from shards.tracking import track_video as track_video

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
    found = getattr(importlib.import_module(module), attribute)
    return _with_checks(found) if inspect.isfunction(found) else found


_with_checks = functools.cache(checked)


def __dir__() -> list[str]:
    return __all__
