"""Types of the arguments that users pass to public functions: a wrong one is a sentence, not an error from far below."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import numbers
import os
import sys
import textwrap
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import InputError

F = TypeVar("F", bound=Callable[..., object])
NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "True or False", Path: "a path"}


def checked(function: F) -> F:
    """``function`` with its arguments checked against its annotations, where these are plain types.

    Args:
        function: annotated with ``str``, ``Path``, numbers, ``None``, unions, sequences and mappings of these. Parameters
            with other annotations are not checked.

    Returns:
        A function with the same signature that raises :class:`InputError` for an argument of another type.
    """
    signature = inspect.signature(function)
    module = sys.modules[function.__module__]

    @functools.wraps(function)
    def call(*arguments: object, **options: object) -> object:
        try:
            given = signature.bind(*arguments, **options).arguments
        except TypeError as error:
            raise TypeError(f"{function.__name__}() {error}") from None
        for name, value in given.items():
            hint = _hint(signature.parameters[name], module)
            if not _fits(value, hint):
                raise InputError(f"{function.__name__}: {name} is {_shown(value)}, expected {_named(hint)}")
        return function(*arguments, **options)

    return typing.cast(F, call)


def _hint(parameter: inspect.Parameter, module: types.ModuleType) -> object:
    if parameter.annotation is inspect.Parameter.empty:
        return Any
    if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
        return Any
    if not isinstance(parameter.annotation, str):
        return parameter.annotation
    try:
        return eval(parameter.annotation, vars(module))  # our own, with postponed evaluation
    except NameError:  # imported for type checkers alone
        return Any


def _fits(value: object, hint: object) -> bool:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if hint is None or hint is type(None):
        return value is None
    if hint in (int, float):
        kind = numbers.Integral if hint is int else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, os.PathLike)
    if hint in (str, bool):
        return isinstance(value, hint)
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        text = isinstance(value, str | bytes | os.PathLike | collections.abc.Mapping)
        if text or not isinstance(value, collections.abc.Iterable):
            return False
        one = inner[0] if len(set(inner) - {Ellipsis}) == 1 else Any
        return not isinstance(value, list | tuple) or all(_fits(item, one) for item in value)
    if origin is collections.abc.Mapping:
        return isinstance(value, collections.abc.Mapping) and all(_fits(item, inner[1]) for item in value.values())
    return True


def _named(hint: object) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if str in inner and Path in inner:
            inner = (Path, *(one for one in inner if one not in (str, Path)))
        return " or ".join(_named(one) for one in inner)
    if hint is type(None):
        return "None"
    if origin in (list, tuple, collections.abc.Sequence, collections.abc.Iterable):
        kinds = list(dict.fromkeys(_named(one) for one in inner if one is not Ellipsis))
        return f"a list ({', '.join(kinds)} each)"
    if origin is collections.abc.Mapping:
        return f"a dictionary ({_named(inner[1])} each)"
    return NAMES.get(hint, getattr(hint, "__name__", str(hint)))  # type: ignore[call-overload]


def _shown(value: object) -> str:
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"an array of shape {tuple(shape)}"
    if value is None or isinstance(value, str | bytes | int | float | list | tuple | dict):
        return textwrap.shorten(repr(value), 100)
    hint = f" (its folder is .path: {value.path})" if isinstance(getattr(value, "path", None), Path) else ""  # type: ignore[attr-defined]
    return f"of type {type(value).__name__}{hint}"
