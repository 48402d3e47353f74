"""Nested dataclasses from YAML and ``key=value`` overrides; an unknown key is an error that names the nearest known one."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from configs.errors import InputError

T = TypeVar("T")
HERE = Path(__file__).parent


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint ``; did you mean 'x'?`` for a misspelt name, or the list of known names."""
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(names)}"


def resolve_config(source: str | Path) -> Path:
    """The file that a YAML path, or a shipped name such as ``pretrain/sync-expert/tiny``, means.

    Raises:
        InputError: neither a file nor a shipped name.
    """
    path = Path(source)
    candidates = [path, HERE / path, HERE / f"{source}.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shipped = [str(p.relative_to(HERE).with_suffix("")) for p in HERE.rglob("*.yaml")]
    raise InputError(f"configuration '{source}': no such file or shipped name{nearest(str(source), shipped)}")


def load_config(cls: type[T], source: str | Path | Mapping[str, object] | None, overrides: Sequence[str] = ()) -> T:
    """Fill the dataclass ``cls`` from a YAML file, a shipped name, a mapping or nothing, then apply overrides.

    Args:
        cls: a (nested, keyword-only) dataclass; its optional method ``check()`` may raise :class:`InputError`.
        source: where the values come from; ``None`` means the defaults.
        overrides: ``["steps=100", "model.layers=4"]``; values are parsed as YAML.

    Raises:
        InputError: unreadable YAML, unknown key (with the nearest known name), wrong type, failed check.
    """
    where, values = _read(source)
    for override in overrides:
        _override(values, override)
    return _build(cls, values, where)


def read_values(source: str | Path) -> dict[str, object]:
    """The values that a YAML file, or a shipped name, holds.

    Raises:
        InputError: no such file, or unreadable YAML.
    """
    return _read(source)[1]


def overridden(config: T, overrides: Sequence[str]) -> T:
    """A copy of ``config`` with ``key=value`` overrides applied and checked; raises as :func:`load_config`."""
    return load_config(type(config), to_dict(config), overrides)


def to_dict(config: Any) -> dict[str, Any]:
    """The plain nested dictionary of a config, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def _read(source: str | Path | Mapping[str, object] | None) -> tuple[str, dict[str, Any]]:
    if source is None:
        return "defaults", {}
    if isinstance(source, Mapping):
        return "configuration", _copy(source)
    path = resolve_config(source)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); correct the file") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, expected a mapping of keys to values")
    return str(path), values


def _copy(values: Mapping[str, object]) -> dict[str, object]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"override '{override}': expected key=value, for example steps=100")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"override '{override}': the value is not readable as YAML") from None
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"override '{override}': '{parent}' is a value, not a group of keys")
    values[last] = value


def _build(cls: type[T], values: Mapping[str, object], where: str, prefix: str = "") -> T:
    hints = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise InputError(f"{where}: unknown key '{prefix}{key}'{nearest(str(key), names)}")
    arguments = {key: _convert(value, hints[key], where, f"{prefix}{key}") for key, value in values.items()}
    try:
        config = cls(**arguments)
    except TypeError as error:
        raise InputError(f"{where}: {str(error).split('__init__() ')[-1]}") from None
    check = getattr(config, "check", None)
    if check is not None:
        check()
    return config


def _convert(value: object, hint: object, where: str, key: str) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, where, key)
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise _wrong(where, key, value, "a group of keys")
        return _build(hint, value, where, f"{key}.")  # type: ignore[arg-type]
    if origin is typing.Literal:
        if value not in arguments:
            raise InputError(f"{where}: '{key}' is {value!r}, expected one of {', '.join(map(repr, arguments))}")
        return value
    if origin in (list, tuple):
        return _convert_sequence(value, origin, arguments, where, key)
    if origin is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise _wrong(where, key, value, "a mapping")
        return dict(value)
    return _convert_scalar(value, hint, where, key)


def _convert_union(value: object, arguments: tuple[object, ...], where: str, key: str) -> object:
    if value is None and type(None) in arguments:
        return None
    error: InputError | None = None
    for argument in arguments:
        if argument is type(None):
            continue
        try:
            return _convert(value, argument, where, key)
        except InputError as caught:
            error = caught
    raise error or _wrong(where, key, value, "no value")


def _convert_sequence(value: object, origin: type, arguments: tuple[object, ...], where: str, key: str) -> object:
    if not isinstance(value, list | tuple):
        raise _wrong(where, key, value, "a list")
    if origin is tuple and Ellipsis not in arguments and arguments and len(value) != len(arguments):
        raise _wrong(where, key, value, f"{len(arguments)} values")
    kinds = [arguments[0]] * len(value) if origin is list or Ellipsis in arguments else list(arguments)
    return origin(_convert(item, kind, where, f"{key}[{i}]") for i, (item, kind) in enumerate(zip(value, kinds)))


def _convert_scalar(value: Any, hint: Any, where: str, key: str) -> object:
    if hint is Any:
        return value
    if hint is float and value != value:  # NaN: every comparison with it is false, so no later check would find it
        raise _wrong(where, key, value, "a number")
    if hint is float and isinstance(value, str) and value.lower().lstrip("+-") != "nan":
        # YAML 1.1 reads 1e-4 as a string; every user means the number.
        try:
            return float(value)
        except ValueError:
            raise _wrong(where, key, value, "a number") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise _wrong(
            where, key, value, {int: "a whole number", float: "a number", str: "a text"}.get(hint, hint.__name__)
        )
    return value


def _wrong(where: str, key: str, value: object, expected: str) -> InputError:
    return InputError(f"{where}: '{key}' is {value!r}, expected {expected}")
