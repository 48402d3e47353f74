"""The folder that ``export --web`` writes: its files, its size, what it says about itself, and what is refused."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from adapt.drivers.prior import PriorDriver
from adapt.models.branches import BranchHead
from adapt.web.arrays import Packer
from adapt.web.export import export_web
from adapt.web.folder import in_import_order, page_files
from adapt.web.sound import runtime_files, sound_files
from configs import InputError
from headstart.cli.app import main


def document_of(page):
    text = (page / "avatar.js").read_text()
    return json.loads(re.fullmatch(r"self\.HEADSTART_AVATAR = (.*);\n", text, re.DOTALL)[1])


def test_a_page_is_small_and_says_that_it_is_synthetic(page, avatar):
    files = {path.name: path.stat().st_size for path in page.iterdir()}
    assert {"index.html", "page.css", "boot.js", "main.js", "avatar.js", "offline.js"} <= set(files)
    assert sum(files.values()) < 6e6
    html, record = (page / "index.html").read_text(), document_of(page)["document"]["record"]
    assert "@@" not in html
    assert "Synthetic head made with headstart" in html
    assert record["synthetic"] is True
    assert record["avatar_sha256"] == avatar.document["files"]["weights.safetensors"]["sha256"]


def test_nothing_of_the_page_reaches_the_network(page):
    for path in page.iterdir():
        text = path.read_text()
        assert not re.search(r"https?://(?!cv\.iptc\.org)", text), path.name
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', (page / "index.html").read_text())[1]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*", policy)


def test_a_name_cannot_become_markup(avatar):
    record = {"statement": "<script>alert(1)</script>", "tool": '"><b>'}
    html = page_files({"name": "<img src=x>"}, b"", record)["index.html"].decode()
    assert "<img" not in html
    assert "<script>alert" not in html
    assert "&lt;img" in html


def test_offline_modules_come_after_what_they_import(page):
    text = (page / "offline.js").read_text()
    packed = json.loads(re.fullmatch(r"self\.HEADSTART_MODULES = (.*);\n", text, re.DOTALL)[1])
    seen = set()
    for name, content in packed.items():
        source = gzip.decompress(base64.b64decode(content)).decode()
        assert source == (page / name).read_text()
        imported = set(re.findall(r'from "\./([\w.-]+)"', source))
        assert imported <= seen, f"{name} imports {imported - seen} too early"
        seen.add(name)
    assert next(reversed(packed)) == "main.js"
    assert seen == {path.name for path in page.glob("*.js")} - {"boot.js", "avatar.js", "offline.js"}


def test_modules_that_import_each_other_are_refused():
    with pytest.raises(ValueError, match=r"main\.js > a\.js > main\.js"):
        in_import_order({"main.js": 'import { a } from "./a.js";', "a.js": 'import { b } from "./main.js";'})


def test_arrays_lie_where_the_document_says():
    packer, rng = Packer(), np.random.default_rng(0)
    rows = rng.normal(size=(3, 50)).astype(np.float32) * [[1], [100], [0]]
    packer.add("half", rows[0], "f16")
    packer.add_steps("steps", rows)
    packer.add_picture("picture", np.array([0.0, 0.5, 1.0, 1.7, -1.0]))
    packer.add_index("index", np.array([0, 70000]))
    content = packer.content()
    entry = packer.entries["steps"]
    stored = np.frombuffer(content, np.int8, 150, entry["at"]).reshape(3, 50) * np.array(entry["step"])[:, None]
    assert (np.abs(stored - rows).max(1) <= np.abs(rows).max(1) / 254 + 1e-6).all()
    assert list(np.frombuffer(content, np.uint8, 5, packer.entries["picture"]["at"])) == [0, 128, 255, 255, 0]
    assert packer.entries["index"]["type"] == "u32"
    assert all(entry["at"] % 16 == 0 for entry in packer.entries.values())


def test_an_existing_folder_is_kept_unless_overwritten(page, avatar, tmp_path):
    target = tmp_path / "page"
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists; choose another name, remove it or pass --overwrite"):
        export_web(str(avatar.path), target)
    for other in (target, target / "mine.txt"):
        kind = "a folder" if other.is_dir() else "a file"
        with pytest.raises(
            InputError, match=rf"is {kind}; --overwrite replaces only a folder with index\.html and avatar\.js"
        ):
            export_web(str(avatar.path), other, overwrite=True)
    assert (target / "mine.txt").read_text() == "mine"
    export_web(str(avatar.path), tmp_path / "other")
    before = (tmp_path / "other" / "main.js").stat().st_ino
    with pytest.raises(InputError, match="exists"):
        export_web(str(avatar.path), tmp_path / "other")
    result = export_web(str(avatar.path), tmp_path / "other", overwrite=True)
    assert (tmp_path / "other" / "main.js").stat().st_ino != before
    assert result["bytes"] == sum(path.stat().st_size for path in (tmp_path / "other").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "page"]


def test_the_command_writes_the_page(avatar, tmp_path, capsys):
    assert main(["export", str(avatar.path), "--out", str(tmp_path / "page"), "--web"]) == 0
    assert "index.html" in capsys.readouterr().out
    assert (tmp_path / "page" / "index.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--web", "--audio", "x.wav"], "--audio and --web contradict each other"),
        (["--web", "--control", "jaw=1"], "--control and --web contradict each other"),
        (["--web", "--pose", "clip"], "--pose and --web contradict each other"),
        (["--web", "--yaw", "3"], "--yaw and --web contradict each other"),
        (["--onnxruntime", "x"], "--onnxruntime belongs to --web"),
    ],
)
def test_options_that_a_page_does_not_take_are_refused(avatar, tmp_path, capsys, arguments, sentence):
    assert main(["export", str(avatar.path), "--out", str(tmp_path / "page"), *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_that_a_page_cannot_run_is_refused(avatar, tmp_path):
    from adapt.web.contents import add_head

    other = replace(avatar, model=object.__new__(BranchHead), document={**avatar.document, "recipe": "fg3dgs"})
    with pytest.raises(InputError, match=r"recipe 'fg3dgs' .* --recipe headstart"):
        add_head(Packer(), other)


def test_features_that_a_page_cannot_make_are_refused(avatar):
    other = replace(avatar, document={**avatar.document, "features": {"name": "hubert", "size": 768}})
    with pytest.raises(InputError, match="'hubert', which the page cannot make"):
        sound_files(other, None)


def test_networks_need_onnxruntime_web(avatar, tmp_path):
    by_whisper = replace(avatar, document={**avatar.document, "features": {"name": "whisper", "size": 384}})
    with pytest.raises(InputError, match=r"npm install onnxruntime-web@[\d.]+, then --onnxruntime"):
        sound_files(by_whisper, None)
    alone = object.__new__(PriorDriver)
    alone.regression = None
    with pytest.raises(InputError, match="speaks by networks"):
        sound_files(replace(avatar, driver=alone), None)
    with pytest.raises(InputError, match=r"holds no ort\.wasm\.bundle\.min\.mjs"):
        runtime_files(tmp_path)
    with pytest.raises(InputError, match=r"holds no ort\.wasm\.bundle\.min\.mjs"):
        sound_files(avatar, tmp_path)  # though this avatar needs none: what is named must be there


def test_runtime_is_found_in_npm_folders(tmp_path):
    dist = tmp_path / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    for name in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (dist / name).write_bytes(name.encode())
    found = [runtime_files(place) for place in (tmp_path, dist.parent, dist)]
    assert found[0] == found[1] == found[2]
    assert set(found[0]) == {"ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"}
