"""Every number of every shipped configuration has a range."""

from __future__ import annotations

from typing import Any, get_args, get_origin, get_type_hints

import pytest

from adapt.recipes import recipe, recipe_names
from cluster.launch.settings import ClusterConfig
from configs import InputError, load_config
from pretrain import prior_names
from pretrain.prior import find_prior

SHIPPED: dict[str, tuple[type, Any]] = {
    **{f"prior {name}": (find_prior(name).config_class, find_prior(name).source("tiny")) for name in prior_names()},
    **{f"recipe {name}": (recipe(name).Config, f"adapt/{name}") for name in recipe_names()},
    "cluster": (ClusterConfig, "cluster/local"),
}


def numbers(cls: type, prefix: str = "") -> list[str]:
    """The dotted keys of a configuration that hold a number."""
    keys = []
    for key, hint in get_type_hints(cls).items():
        if hasattr(hint, "__dataclass_fields__"):
            keys += numbers(hint, f"{prefix}{key}.")
        elif {int, float} & {hint, *get_args(hint)} and get_origin(hint) not in (list, tuple):
            keys.append(f"{prefix}{key}")
    return keys


def refusal(cls: type, source: Any, override: str) -> str:
    """The sentence with which an override is refused; empty if it is taken."""
    try:
        load_config(cls, source, [override])
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("value", ["-2", "-0.5", "inf", "nan"])
def test_no_key_of_a_shipped_configuration_takes_a_number_that_cannot_be_meant(name, value):
    cls, source = SHIPPED[name]
    assert len(numbers(cls)) > 5
    for key in numbers(cls):
        assert "expected" in refusal(cls, source, f"{key}={value}"), f"{key}={value} was taken"


@pytest.mark.parametrize("name", SHIPPED)
def test_zero_is_taken_or_refused_with_a_sentence(name):
    cls, source = SHIPPED[name]
    for key in numbers(cls):
        refusal(cls, source, f"{key}=0")
