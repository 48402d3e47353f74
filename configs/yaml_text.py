"""YAML as configurations mean it: a key stands once, and numbers are read by YAML 1.2.

PyYAML takes the last of equal keys in silence, and by YAML 1.1 reads 010 as 8, 1:30 as 90 and 1e-4 as a text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable

import yaml

INT, FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
WHOLE = re.compile(r"[-+]?[0-9]+(_[0-9]+)*$|0o[0-7]+$|0x[0-9a-fA-F]+$")
DECIMAL = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(_[0-9]+)*(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$"
)


def read_yaml(text: str) -> object:
    """The values of a YAML document.

    Raises:
        yaml.YAMLError: it is not readable, or a mapping holds a key twice.
    """
    return yaml.load(text, Loader=_Loader)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        lines: dict[object, int] = {}
        for name, _ in node.value:
            key = name.value if isinstance(name, yaml.ScalarNode) else None
            if key is not None and key in lines:
                first, second = lines[key], name.start_mark.line + 1
                lines_of = f"line {first}" if first == second else f"lines {first} and {second}"
                raise yaml.YAMLError(f"the key '{key}' stands twice, in {lines_of}")
            lines[key] = name.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _whole(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 0) if text[:2] in ("0o", "0x") else int(text)


def _decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node)
    return float(re.sub(r"\.(?=[in])", "", text.lower()))  # .inf and .nan


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (INT, FLOAT)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(INT, WHOLE, list("-+0123456789"))
_Loader.add_implicit_resolver(FLOAT, DECIMAL, list("-+.0123456789"))
_Loader.add_constructor(INT, _whole)
_Loader.add_constructor(FLOAT, _decimal)
