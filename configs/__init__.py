"""Typed configuration, and the one error that means "the user's input is wrong".

This is the leaf room: every other room may import it and it imports none of them. The YAML files beside this
module are configurations; the dataclasses that they fill live in the rooms that use them.
"""

from configs.errors import InputError
from configs.loading import load_config, nearest, overridden, resolve_config, to_dict

__all__ = ["InputError", "load_config", "nearest", "overridden", "resolve_config", "to_dict"]
