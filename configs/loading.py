"""Nested dataclasses from YAML and ``key=value`` overrides; an unknown key is an error that names the nearest known one.

A number has to be finite and not negative, unless its field says otherwise (:mod:`configs.bounds`).
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from configs.bounds import NOT_NEGATIVE, Within
from configs.errors import InputError
from configs.yaml_text import read_yaml

T = TypeVar("T")
HERE = Path(__file__).parent
Leaves = tuple[str, ...]


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
        InputError: unreadable YAML, unknown key (with the nearest known name), wrong type, a number out of its range,
            failed check. It names the file, or the override if the mistake is in that.
    """
    where, values = _read(source)
    origin = Origin(where)
    for override in overrides:
        origin.overrides[_override(values, override)] = f"'{override}'"
    return _build(cls, values, origin)


def read_values(source: str | Path) -> dict[str, object]:
    """The values that a YAML file, or a shipped name, holds.

    Raises:
        InputError: no such file, or unreadable YAML.
    """
    return _read(source)[1]


def validated(config: T) -> T:
    """A copy of a configuration that was made in Python, its types and numbers checked; raises as :func:`load_config`."""
    return overridden(config, ())


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
        values = read_yaml(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as YAML ({' '.join(str(error).split())}); correct the file") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds a {type(values).__name__}, expected a mapping of keys to values")
    return str(path), values


def _copy(values: Mapping[str, object]) -> dict[str, object]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


@dataclasses.dataclass
class Origin:
    """Where keys come from: a file or mapping, and the overrides by their dotted keys."""

    file: str
    overrides: dict[str, str] = dataclasses.field(default_factory=dict)

    def of(self, key: str) -> str:
        """What a message about a key begins with: the last override that sets it, or a group around or below it; else the file."""
        for override in reversed(self.overrides):
            if f"{key}[".startswith((f"{override}[", f"{override}.")) or override.startswith(f"{key}."):
                return self.overrides[override]
        return self.file


def _override(values: dict[str, Any], override: str) -> str:
    """Apply ``key=value``; returns the key."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise InputError(f"override '{override}': expected key=value, for example steps=100")
    try:
        value = read_yaml(text)
    except yaml.YAMLError as error:
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        raise InputError(f"override '{override}': the value is not readable as YAML ({reason})") from None
    *parents, last = key.split(".")
    for parent in parents:
        values = values.setdefault(parent, {})
        if not isinstance(values, dict):
            raise InputError(f"override '{override}': '{parent}' is a value, not a group of keys")
    values[last] = value
    return key


def _build(cls: type[T], values: Mapping[str, object], origin: Origin, prefix: str = "", known: Leaves = ()) -> T:
    hints = typing.get_type_hints(cls, include_extras=True)
    names = [field.name for field in dataclasses.fields(cls) if field.init]  # type: ignore[arg-type]
    known = known or tuple(_leaves(cls))
    for key in values:
        if key not in names:
            dotted = f"{prefix}{key}"
            if dotted in known:
                group, _, last = str(key).rpartition(".")
                nested = f"write '{group}:' and below it, indented, '{last}: ...'"
                raise InputError(f"{origin.of(dotted)}: the key '{key}' is written with a dot; {nested}")
            raise InputError(f"{origin.of(dotted)}: unknown key '{dotted}'{_nearest_key(dotted, names, known)}")
    arguments = {key: _convert(value, hints[key], origin, f"{prefix}{key}", known) for key, value in values.items()}
    try:
        config = cls(**arguments)
    except TypeError as error:
        raise InputError(f"{origin.file}: {str(error).split('__init__() ')[-1]}") from None
    check = getattr(config, "check", None)
    if check is not None:
        check()
    return config


def _leaves(cls: type, prefix: str = "") -> Iterable[str]:
    """The dotted keys of a class and of its groups."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _leaves(hints[field.name], f"{prefix}{field.name}.")  # type: ignore[arg-type]
        elif field.init:
            yield f"{prefix}{field.name}"


def _nearest_key(key: str, names: Sequence[str], known: Leaves) -> str:
    """A hint for an unknown key: the same name in another group, or the nearest name of its own group."""
    last = key.rpartition(".")[2]
    elsewhere = [leaf for leaf in known if leaf.rpartition(".")[2] == last]
    if last and elsewhere:
        return f"; did you mean {' or '.join(map(repr, elsewhere))}?"
    return nearest(last, names)


def _convert(value: object, hint: object, origin: Origin, key: str, known: Leaves) -> object:
    within = NOT_NEGATIVE
    if typing.get_origin(hint) is typing.Annotated:
        hint, *extras = typing.get_args(hint)
        within = next((extra for extra in extras if isinstance(extra, Within)), within)
    outer, arguments = typing.get_origin(hint), typing.get_args(hint)
    if outer in (typing.Union, types.UnionType):
        return _convert_union(value, arguments, origin, key, known, within)
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(value):
            return value
        if not isinstance(value, Mapping):
            raise _wrong(origin, key, value, f"a group of keys, such as {next(iter(_leaves(hint, f'{key}.')), key)}")  # type: ignore[arg-type]
        return _build(hint, value, origin, f"{key}.", known)  # type: ignore[arg-type]
    if outer is typing.Literal:
        if value not in arguments:
            raise _wrong(origin, key, value, f"one of {', '.join(map(repr, arguments))}")
        return value
    if outer in (list, tuple):
        return _convert_sequence(value, outer, arguments, origin, key, known)
    if outer is dict or hint is dict:
        if not isinstance(value, Mapping):
            raise _wrong(origin, key, value, "a mapping")
        return dict(value)
    return _convert_scalar(value, hint, origin, key, within)


def _convert_union(
    value: object, arguments: tuple[object, ...], origin: Origin, key: str, known: Leaves, within: Within
) -> object:
    if value is None and type(None) in arguments:
        return None
    error: InputError | None = None
    for argument in arguments:
        if argument is type(None):
            continue
        hint = argument if typing.get_origin(argument) is typing.Annotated else typing.Annotated[argument, within]
        try:
            return _convert(value, hint, origin, key, known)
        except InputError as caught:
            error = caught
    raise error or _wrong(origin, key, value, "no value")


def _convert_sequence(
    value: object, outer: type, arguments: tuple[object, ...], origin: Origin, key: str, known: Leaves
) -> object:
    if not isinstance(value, list | tuple):
        raise _wrong(origin, key, value, "a list")
    if outer is tuple and Ellipsis not in arguments and arguments and len(value) != len(arguments):
        raise _wrong(origin, key, value, f"{len(arguments)} values")
    kinds = [arguments[0]] * len(value) if outer is list or Ellipsis in arguments else list(arguments)
    return outer(_convert(item, kind, origin, f"{key}[{i}]", known) for i, (item, kind) in enumerate(zip(value, kinds)))


def _convert_scalar(value: Any, hint: Any, origin: Origin, key: str, within: Within) -> object:
    if hint is Any:
        return value
    given = value
    if hint is float and isinstance(value, str):
        # In quotes, or from a mapping of texts; every user means the number.
        try:
            value = float(value)
        except ValueError:
            raise _wrong(origin, key, value, "a number") from None
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    expected = {int: "a whole number", float: "a number", str: "a text"}.get(hint, getattr(hint, "__name__", str(hint)))
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)) or value != value:  # NaN
        raise _wrong(origin, key, given, expected)
    if hint in (int, float) and value not in within:
        raise _wrong(origin, key, given, f"{expected} {within}")
    return value


def _wrong(origin: Origin, key: str, value: object, expected: str) -> InputError:
    return InputError(f"{origin.of(key)}: '{key}' is {value!r}, expected {expected}")
