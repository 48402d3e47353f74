"""The house measured: imports of every module (functions included), circles, `Any`, sizes of folders and files.

``python -m tests.support.architecture`` prints the numbers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("configs", "heads", "cluster", "shards", "pretrain", "adapt", "headstart")
MOST_FILES, MOST_LINES = 14, 400  # about 12; a folder of plug-ins may hold a few more


@dataclass(frozen=True)
class Import:
    """One import of one of our modules, or of a third party's package.

    Attributes:
        importer, imported: dotted modules of ours, or the third party's dotted name.
        inside: whether it stands in a function.
    """

    importer: str
    imported: str
    inside: bool
    line: int


def files(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> list[Path]:
    """Every Python file of the rooms."""
    return sorted(path for room in rooms for path in (root / room).rglob("*.py"))


def module_name(path: Path, root: Path = ROOT) -> str:
    """Dotted name of a file."""
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> list[Import]:
    """Every import in the rooms; ``from package import module`` counts as an import of the module."""
    known = {module_name(path, root) for path in files(root, rooms)}
    return [found for path in files(root, rooms) for found in _of_file(path, root, known)]


def _of_file(path: Path, root: Path, known: set[str]) -> Iterator[Import]:
    name = module_name(path, root)
    for node, inside in _walk(ast.parse(path.read_text(encoding="utf-8")), False):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        else:
            assert isinstance(node, ast.ImportFrom)
            base = node.module or ""
            targets = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        for target in dict.fromkeys(targets):
            yield Import(name, target, inside, node.lineno)


def _walk(node: ast.AST, inside: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            if getattr(child, "level", 0) == 0:
                yield child, inside
        else:
            yield from _walk(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)))


def ours(found: list[Import], rooms: tuple[str, ...] = ROOMS) -> list[Import]:
    """Imports of our own modules."""
    return [entry for entry in found if entry.imported.split(".")[0] in rooms]


def circles(found: list[Import]) -> list[tuple[str, ...]]:
    """Groups of modules that import each other, in a ring of any length, at module level or in functions."""
    graph: dict[str, set[str]] = {}
    for entry in found:
        graph.setdefault(entry.importer, set()).add(entry.imported)
        graph.setdefault(entry.imported, set())
    return [group for group in _components(graph) if len(group) > 1 or group[0] in graph[group[0]]]


def _components(graph: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Strongly connected components (Tarjan), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    done: list[tuple[str, ...]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = []
            while not group or group[-1] != node:
                group.append(stack.pop())
            done.append(tuple(sorted(group)))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return done


def any_annotations(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> int:
    """How often ``Any`` stands in an annotation."""
    count = 0
    for path in files(root, rooms):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            notes = [getattr(node, "annotation", None), getattr(node, "returns", None)]
            count += sum(
                isinstance(part, ast.Name) and part.id == "Any" for note in notes if note for part in ast.walk(note)
            )
    return count


def folder_sizes(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> dict[str, int]:
    """Python files directly in each folder, without ``__init__``."""
    sizes: dict[str, int] = {}
    for path in files(root, rooms):
        if path.name != "__init__.py":
            folder = str(path.parent.relative_to(root))
            sizes[folder] = sizes.get(folder, 0) + 1
    return sizes


def long_files(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS, most: int = MOST_LINES) -> dict[str, int]:
    """Files of more than ``most`` lines."""
    lengths = {
        str(path.relative_to(root)): len(path.read_text(encoding="utf-8").splitlines()) for path in files(root, rooms)
    }
    return {path: length for path, length in lengths.items() if length > most}


def report(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> str:
    """The numbers, one a line."""
    own = ours(imports(root, rooms), rooms)
    sizes, long = folder_sizes(root, rooms), long_files(root, rooms)
    rings = circles(own)
    largest = max(sizes, key=lambda folder: sizes[folder])
    lines = [
        f"modules: {len(files(root, rooms))}",
        f"import circles: {len(rings)} with {sum(map(len, rings))} modules",
        f"our own modules imported inside functions: {sum(entry.inside for entry in own)}",
        f"Any in annotations: {any_annotations(root, rooms)}",
        f"largest folder: {largest} with {sizes[largest]} files",
        f"files over {MOST_LINES} lines: {len(long)}: {', '.join(f'{path} {length}' for path, length in long.items())}",
    ]
    lines += [f"circle: {' '.join(ring)}" for ring in rings]
    return "\n".join(lines)


if __name__ == "__main__":
    import sys

    print(report(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT))
