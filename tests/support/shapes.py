"""Shapes that docstrings promise, checked against real calls.

``shapes_of(function)`` reads them where the project writes them: ``name: ``[B, N, 3]`` `` in the arguments,
``name [B, N, 3]`` in double backticks anywhere, and for the result the first nameless shape of the summary or of
``Returns``. ``checked(function)`` is the function, which fails when a call disagrees: the same letter must mean the same
number everywhere in one call, a number must be that number, and ``...`` stands for any leading dimensions, the same ones
wherever it stands.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

Shape = tuple[str, ...]
_NAMED = re.compile(r"``(\w+) \[([^\]`]+)\]``")
_LISTED = re.compile(r"^\s*(\w+(?:, \w+)*):[^`\n]*``\[([^\]`]+)\]``", re.M)
_BESIDE = re.compile(r"(?<![`\w])(\w+) ``\[([^\]`]+)\]``")
_ALONE = re.compile(r"``\[([^\]`]+)\]``")


def shapes_of(function: Callable[..., Any]) -> tuple[dict[str, Shape], Shape | None]:
    """Documented shapes of the parameters, by name, and of the (first) result; ``None`` where none is written."""
    text = inspect.getdoc(function) or ""
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    found: dict[str, Shape] = {}
    for pattern in (_NAMED, _LISTED, _BESIDE):
        for match in pattern.finditer(text):
            for name in match[1].split(", "):
                # Optional dimensions, "[(B,) N]", have no one shape.
                if name in names and "(" not in match[2]:
                    found.setdefault(name, _dims(match[2]))
    summary, returns = text.split("\n\n")[0], text.partition("Returns:")[2]
    alone = [_dims(m[1]) for m in _ALONE.finditer(returns or summary)]
    plain = [dims for dims in alone if not any("(" in dim for dim in dims)]
    if not returns and len(alone) == len(plain) == 2 and len(names) == 1 and names[0] not in found:
        found[names[0]] = alone[1]  # "Vectors [..., 3] of matrices [..., 3, 3]"
    return found, alone[0] if alone else None


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose calls must have the documented shapes.

    Raises:
        AssertionError: a call that disagrees, or a docstring that documents no shape at all.
    """
    shapes, result = shapes_of(function)
    assert shapes or result, f"{function.__qualname__} documents no shape"

    def call(*args: Any, **kwargs: Any) -> Any:
        bound = inspect.signature(function).bind(*args, **kwargs)
        sizes: dict[str, Any] = {}
        for name, shape in shapes.items():
            value = bound.arguments.get(name)
            if hasattr(value, "shape"):
                _match(f"{function.__qualname__}: {name}", shape, tuple(value.shape), sizes)
        out = function(*args, **kwargs)
        first = out[0] if isinstance(out, tuple) else out
        if result is not None and hasattr(first, "shape"):
            _match(f"{function.__qualname__}: result", result, tuple(first.shape), sizes)
        return out

    return call


def _dims(text: str) -> Shape:
    return tuple(part.strip() for part in text.rstrip(",").split(","))


def _match(where: str, shape: Shape, actual: tuple[int, ...], sizes: dict[str, Any]) -> None:
    told = f"{where}: documented {list(shape)}, got {list(actual)}"
    if shape[0] == "...":
        shape, cut = shape[1:], len(actual) - len(shape) + 1
        assert cut >= 0, told
        assert sizes.setdefault("...", actual[:cut]) == actual[:cut], f"{told} with ... = {sizes['...']}"
        actual = actual[cut:]
    assert len(shape) == len(actual), told
    for dim, size in zip(shape, actual):
        expected = int(dim) if dim.isdigit() else _value(dim, sizes, size)
        # A batch of one is shared.
        assert size == expected or (size == 1 and dim == "B"), f"{told} with {sizes}"


def _value(dim: str, sizes: dict[str, Any], size: int) -> int:
    """What a letter stands for in this call; an expression of known letters is worked out."""
    if re.fullmatch(r"[A-Za-z]\w*", dim):
        if dim == "B" and size == 1:
            return sizes.get(dim, 1)
        return int(sizes.setdefault(dim, size))
    words = re.findall(r"[A-Za-z_]\w*", dim)
    if all(word in sizes for word in words) and re.fullmatch(r"[\w +*/()-]+", dim):
        return int(eval(dim, {"__builtins__": {}}, sizes))  # digits, letters of this call and + - * / alone
    return size
