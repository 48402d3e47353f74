"""Typed configuration: what it accepts, and the sentences with which it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from configs import InputError, load_config, overridden, to_dict
from configs.bounds import Share, Within
from configs.loading import validated
from configs.yaml_text import read_yaml


@dataclass(frozen=True, kw_only=True)
class Model:
    layers: int = 4
    width: float = 1.0
    kind: Literal["small", "large"] = "small"
    dropout: Share = 0.0
    tilt: Annotated[float, Within(-1, 1)] = 0.0
    heads: Annotated[int, Within(1)] | None = None


@dataclass(frozen=True, kw_only=True)
class Run:
    steps: int = 10
    name: str | None = None
    sizes: tuple[int, ...] = (1, 2)
    model: Model = field(default_factory=Model)

    def check(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps is {self.steps}, expected at least 1")


def test_yaml_and_overrides_fill_nested_dataclasses(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("steps: 5\nmodel: {layers: 2}\n")
    run = load_config(Run, path, ["model.width=1e-3", "name=null", "sizes=[3,4,5]"])
    assert run == Run(steps=5, model=Model(layers=2, width=1e-3), sizes=(3, 4, 5))


def test_what_was_loaded_round_trips_through_a_dictionary():
    run = load_config(Run, {"model": {"kind": "large"}})
    assert load_config(Run, to_dict(run)) == run
    assert overridden(run, ["steps=7"]).steps == 7


def test_a_configuration_made_in_python_is_checked_as_a_loaded_one():
    run = Run(steps=7)
    assert validated(run) == run
    for wrong, words in (
        (Run(steps=-1), "'steps' is -1, expected a whole number from 0 on"),
        (Run(steps=0), "steps is 0"),
        (Run(model=Model(dropout=2.0)), r"'model\.dropout' is 2\.0"),
    ):
        with pytest.raises(InputError, match=words):
            validated(wrong)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["stesp=5"], "did you mean 'steps'"),
        (["model.layer=5"], "did you mean 'layers'"),
        (["width=5"], r"'width=5': unknown key 'width'; did you mean 'model\.width'"),
        (["steps=-1"], "'steps=-1': 'steps' is -1, expected a whole number from 0 on"),
        (["model.dropout=1.5"], "is 1.5, expected a number from 0 to 1"),
        (["model.tilt=-2"], "is -2, expected a number from -1 to 1"),
        (["model.heads=0"], "is 0, expected a whole number from 1 on"),
        (["sizes=[1,-2]"], r"'sizes\[1\]' is -2"),
        (["model.width=inf"], "is '?inf'?, expected a number from 0 on"),
        (["steps=many"], "expected a whole number"),
        (["steps=true"], "expected a whole number"),
        (["model=3"], "expected a group of keys"),
        (["model.kind=huge"], "expected one of 'small', 'large'"),
        (["model.width=.nan"], "expected a number"),
        (["model.width=nan"], "expected a number"),
        (["steps"], "expected key=value"),
        (["steps=0"], "expected at least 1"),
        (["steps.more=0"], "is a value, not a group"),
        (["model={layers: 1, layers: 2}"], r"not readable as YAML \(the key 'layers' stands twice, in line 1\)"),
        (["sizes=[1"], r"not readable as YAML \(expected ',' or '\]', but got '<stream end>'\)"),
    ],
)
def test_a_wrong_override_is_refused_with_a_sentence(overrides, words):
    with pytest.raises(InputError, match=words):
        load_config(Run, {"steps": 1}, overrides)


@pytest.mark.parametrize(("text", "words"), [("a: [", "not readable as YAML"), ("- 1", "expected a mapping")])
def test_a_broken_file_is_refused_with_its_name(tmp_path, text, words):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        load_config(Run, path)
    assert "broken.yaml" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps: 1\nmodel: {layers: 2}\nsteps: 3\n", r"the key 'steps' stands twice, in lines 1 and 3"),
        ("model:\n  layers: 2\n  layers: 3\n", r"the key 'layers' stands twice, in lines 2 and 3"),
        ("model.layers: 2\n", r"written with a dot; write 'model:' and below it, indented, 'layers: \.\.\.'"),
    ],
)
def test_a_key_that_stands_twice_or_is_not_nested_is_refused(tmp_path, text, words):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        load_config(Run, path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("010", 10), ("-7", -7), ("+7", 7), ("0x1F", 31), ("0o17", 15), ("1_000", 1000), ("1:30", "1:30")),
        *(("1e-4", 1e-4), ("1.5", 1.5), (".5", 0.5), ("-.5E+3", -500.0), ("1.", 1.0), ("2e3", 2000.0)),
        *((".inf", float("inf")), ("-.Inf", -float("inf")), ("e3", "e3"), ("1e", "1e"), (".", "."), ("v1.5", "v1.5")),
        *(("1_", "1_"), ("1__0", "1__0"), ("true", True), ("null", None), ("'010'", "010")),
    ],
)
def test_numbers_are_those_of_yaml_1_2(text, value):
    read = read_yaml(text)
    assert (read, type(read)) == (value, type(value))


def test_anchors_and_merged_groups_are_read():
    assert read_yaml("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n")["d"] == {"b": 1, "c": 3}


def test_a_missing_file_is_refused():
    with pytest.raises(InputError, match="no such file or shipped name"):
        load_config(Run, "pretrain/none/such")


def test_a_mistake_names_the_file_or_the_override_that_it_is_in(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("model: {layers: many}\n")
    with pytest.raises(InputError, match=r"run\.yaml: 'model\.layers' is 'many'"):
        load_config(Run, path, ["steps=5"])
    with pytest.raises(InputError, match=r"^'model\.layers=few': 'model\.layers' is 'few'"):
        load_config(Run, path, ["model.layers=few"])


def test_a_negative_number_is_taken_where_the_field_allows_it():
    assert load_config(Run, None, ["model.tilt=-1"]).model.tilt == -1
