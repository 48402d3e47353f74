"""Arguments of public functions: a wrong type is one sentence that names the argument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from configs import InputError
from configs.arguments import checked


class Saved:
    path = Path("me.avatar")


@checked
def work(
    video: str | Path,
    *,
    size: int | None = None,
    budget: str | float = "60s",
    set: Sequence[str] = (),
    controls: Sequence[str] | Mapping[str, float] | None = None,
    overwrite: bool = False,
    stop: Saved | None = None,
) -> tuple:
    """Work."""
    return video, size, budget, set, controls, overwrite


def test_arguments_of_the_annotated_types_pass_unchanged():
    assert work(Path("a"), size=np.int64(3), budget=2, set=["a=1"], controls={"smile": 1.0})[:3] == (Path("a"), 3, 2)
    assert work("a", controls=("smile=1",), overwrite=True)[4] == ("smile=1",)
    assert work.__doc__ == "Work."


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"video": np.zeros((2, 3))}, r"work: video is an array of shape \(2, 3\), expected a path"),
        ({"video": None}, "video is None, expected a path"),
        ({"video": Saved()}, r"video is of type Saved \(its folder is \.path: me\.avatar\), expected a path"),
        ({"size": "128"}, "size is '128', expected a whole number or None"),
        ({"size": 1.5}, "size is 1.5, expected a whole number or None"),
        ({"size": True}, "size is True, expected a whole number"),
        ({"budget": None}, "budget is None, expected a text or a number"),
        ({"set": "rate=1"}, r"set is 'rate=1', expected a list \(a text each\)"),
        ({"set": [1]}, r"set is \[1\], expected a list \(a text each\)"),
        (
            {"controls": {"smile": "a"}},
            r"controls is \{'smile': 'a'\}, expected .* a dictionary \(a number each\) or None",
        ),
        ({"overwrite": "no"}, "overwrite is 'no', expected True or False"),
    ],
)
def test_a_wrong_type_is_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        work(**{"video": "a", **arguments})


def test_a_misspelt_argument_is_python_s_own_error():
    with pytest.raises(TypeError, match=r"work\(\) got an unexpected keyword argument 'sice'"):
        work("a", sice=3)
