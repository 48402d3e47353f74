"""What the documentation names exists: files, functions of the papers-to-code map, pages, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from headstart.cli.app import parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MAPS = [ROOT / "docs" / name for name in ("papers.md", "heads.md", "shards.md")]
NOT_OURS = {"diffusers", "strategy", "cpu", "json"}  # packages, a backend, an ending


def paths(text: str) -> set[str]:
    """Files and folders of this repository that a page names in code type."""
    rooms = r"(?:adapt|benchmarks|cluster|configs|heads|pretrain|shards|tests)"
    found = set(re.findall(rf"`({rooms}/[\w/.-]+?(?:\.(?:py|yaml|md|sh)|/))`", text))
    return {path for path in found if not re.search("[A-Z]{4}", path)}  # PRIOR, NAME stand for a name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    assert [name for name in sorted(paths(page.read_text())) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", MAPS, ids=lambda page: page.name)
def test_names_beside_a_file_in_a_map_are_defined_in_it(page):
    missing = []
    for line in page.read_text().splitlines():
        if not line.startswith("|") or "`" not in line:
            continue
        found, code = paths(line), "".join(_source(path) for path in paths(line) if not path.startswith("configs"))
        # A second file of the same folder is named without it: `model.py` `Denoiser`, `diffusion.py` `add_noise`.
        folders = {(ROOT / path).parent for path in found if path.endswith(".py")}
        for short in re.findall(r"`(\w+\.py)`", line):
            code += "".join((folder / short).read_text() for folder in folders if (folder / short).exists())
        names = re.findall(r"`([A-Za-z_]\w*(?:\.\w+)?)`", line) if found else []
        for name in names:
            last = name.split(".")[-1]
            if last not in {"py", *NOT_OURS} and not re.search(
                rf"(?:def|class) {last}\b|^{last} =", code, re.MULTILINE
            ):
                missing.append(f"{name} in {sorted(found)}")
    assert missing == []


def _source(path: str) -> str:
    place = ROOT / path
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    return "".join(file.read_text() for file in files)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "README.md"], ids=lambda page: page.name)
def test_commands_that_a_page_shows_are_known_to_the_command_line(page):
    known = set(parser()._subparsers._group_actions[0].choices)
    lines = re.findall(r"^(?:    |\$ )?headstart ([a-z-]+)", page.read_text(), re.MULTILINE)
    assert set(lines) <= known


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"[\w-]+\.md", str(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert sorted(listed) == [page.name for page in PAGES]
