"""Round trips of generated heads through every format, within the bounds that docs/export.md states."""

from __future__ import annotations

import gzip
import json
import struct
import sys

import numpy as np
import pytest

from adapt.avatar.export import Cloud, format_of, formats, glb, ply, spz, usd
from adapt.avatar.export.axes import half_turn
from configs import InputError
from tests.support.export_samples import BOUNDS, assert_within

SUFFIXES = (".ply", ".glb", ".spz", ".usdc", ".usdz")


def needs_usd(suffix: str) -> None:
    """Skip where the format's library is absent."""
    if suffix.startswith(".usd"):
        pytest.importorskip("pxr", reason="usd-core is not installed: pip install 'headstart[usd]'")


@pytest.mark.parametrize("axes", [None, "opencv", "opengl"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_head_survives_every_format_within_the_stated_bounds(suffix, axes, cloud, record, tmp_path):
    needs_usd(suffix)
    path = tmp_path / f"head{suffix}"
    format_of(path).write(path, cloud, record, axes)
    assert_within(format_of(path).read(path), cloud, BOUNDS[suffix])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_file_says_that_it_is_synthetic_and_by_whom(suffix, cloud, record, tmp_path):
    needs_usd(suffix)
    path = tmp_path / f"head{suffix}"
    format_of(path).write(path, cloud, record)
    said = format_of(path).read_record(path)
    assert said["synthetic"] is True
    assert said["creator"] == "Jörg Müller"
    assert said["avatar_sha256"] == "ab" * 32
    assert said["digital_source_type"].endswith("trainedAlgorithmicMedia")
    assert (said["axes"], said["units"]) == ("opengl", "metres")


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".spz"])
def test_equal_heads_give_equal_files(suffix, cloud, record, tmp_path):
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        format_of(path).write(path, cloud, record)
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("suffix", [".ply", ".glb", ".spz"])
def test_a_file_cut_short_is_refused(suffix, cloud, record, tmp_path):
    path = tmp_path / f"head{suffix}"
    format_of(path).write(path, cloud, record)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=str(path)):
        format_of(path).read(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_no_head_is_refused(suffix, tmp_path):
    needs_usd(suffix)
    path = tmp_path / f"head{suffix}"
    path.write_bytes(b"#usda 1.0\n" + bytes(100))
    with pytest.raises(InputError, match=str(path)):
        format_of(path).read(path)


def test_a_failed_write_leaves_what_stood_there(cloud, record, tmp_path, monkeypatch):
    path = tmp_path / "head.ply"
    ply.write(path, cloud, record)
    before = path.read_bytes()
    monkeypatch.setattr(ply, "rows", lambda cloud: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ply.write(path, cloud, record)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["head.ply"]


# --- clouds ---------------------------------------------------------------------------------------------------------


def test_a_cloud_is_refused_where_it_cannot_be_right(cloud):
    with pytest.raises(InputError, match=r"quats has shape \[4000, 3\], expected \[4000, 4\]"):
        cloud.replace(quats=cloud.means)
    means = cloud.means.copy()
    means[17, 1] = np.nan
    with pytest.raises(InputError, match="means of Gaussian 17 is not finite"):
        cloud.replace(means=means)
    with pytest.raises(InputError, match="none to export"):
        Cloud.make(*(np.zeros((0, width)) for width in (3, 4, 3)), np.zeros(0), np.zeros((0, 3)))


def test_values_out_of_range_are_moved_into_it():
    cloud = Cloud.make(np.zeros((2, 3)), [[0, 0, 0, 0], [2, 0, 0, 0]], np.zeros((2, 3)), [0, 1], [[-1, 0, 2]] * 2)
    assert np.array_equal(cloud.quats, [[1, 0, 0, 0]] * 2)
    assert (cloud.scales > 0).all()
    assert 0 < cloud.opacities[0] < cloud.opacities[1] < 1
    assert np.array_equal(cloud.colors[0], [0, 0, 1])


def test_a_batch_of_heads_becomes_clouds_in_metres():
    import torch

    from heads import Gaussians

    parts = torch.randn(2, 5, 3), torch.randn(2, 5, 4), torch.rand(2, 5, 3), torch.rand(2, 5), torch.rand(2, 5, 3)
    batch = Gaussians(*parts)
    cloud = Cloud.of_head(batch, 1)
    assert np.allclose(cloud.means, batch.means[1].numpy() * 0.063)
    assert np.allclose(cloud.scales, batch.scales[1].numpy() * 0.063)
    assert np.allclose(np.linalg.norm(cloud.quats, axis=1), 1)


# --- the file's own form --------------------------------------------------------------------------------------------


def test_a_ply_has_float_columns_only_with_finite_logits_and_unit_quaternions(cloud, record, tmp_path):
    path = tmp_path / "head.ply"
    ply.write(path, cloud, record)
    data = path.read_bytes()
    end = data.index(b"end_header\n") + len("end_header\n")
    lines = data[:end].decode("ascii").splitlines()
    assert {line.split()[1] for line in lines if line.startswith("property")} == {"float"}
    assert any(line.startswith("comment Synthetic") for line in lines)
    assert len(data) - end == cloud.n * 17 * 4
    table = np.frombuffer(data, "<f4", offset=end).reshape(cloud.n, 17)
    assert np.isfinite(table).all()
    assert np.abs(table[:, 9]).max() < 14
    assert np.allclose(np.linalg.norm(table[:, 13:], axis=1), 1, atol=1e-6)
    assert np.allclose(table[:, 6:9] * 0.28209479177387814 + 0.5, cloud.colors, atol=1e-6)


def test_a_ply_of_other_columns_is_refused_by_name(cloud, record, tmp_path):
    path = tmp_path / "head.ply"
    ply.write(path, cloud, record)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"property float rot_3\n", b"property float rot_x\n"))
    with pytest.raises(InputError, match="column 'rot_3' is missing"):
        ply.read(path)
    path.write_bytes(data.replace(b"property float nx\n", b"property uchar red\n"))
    with pytest.raises(InputError, match="float columns only"):
        ply.read(path)


def _glb(path):
    data = path.read_bytes()
    magic, version, length, text, kind = struct.unpack_from("<4sIII4s", data)
    assert (magic, version, length, kind, text % 4) == (b"glTF", 2, len(data), b"JSON", 0)
    rest, kind = struct.unpack_from("<I4s", data, 20 + text)
    assert (kind, rest % 4, 28 + text + rest) == (b"BIN\0", 0, len(data))
    return json.loads(data[20 : 20 + text]), data[28 + text :]


def test_a_glb_is_what_the_ratified_extension_asks_for(cloud, record, tmp_path):
    path = tmp_path / "head.glb"
    glb.write(path, cloud, record)
    document, binary = _glb(path)
    assert document["extensionsUsed"] == ["KHR_gaussian_splatting"]
    primitive = document["meshes"][0]["primitives"][0]
    assert primitive["mode"] == 0
    extension = primitive["extensions"]["KHR_gaussian_splatting"]
    assert (extension["kernel"], extension["colorSpace"]) == ("ellipse", "srgb_rec709_display")
    expected = {
        "POSITION": ("VEC3", 5126),
        "KHR_gaussian_splatting:ROTATION": ("VEC4", 5126),
        "KHR_gaussian_splatting:SCALE": ("VEC3", 5126),
        "KHR_gaussian_splatting:OPACITY": ("SCALAR", 5126),
        "KHR_gaussian_splatting:SH_DEGREE_0_COEF_0": ("VEC3", 5126),
        "COLOR_0": ("VEC4", 5121),
    }
    found = {name: document["accessors"][index] for name, index in primitive["attributes"].items()}
    assert {name: (a["type"], a["componentType"]) for name, a in found.items()} == expected
    assert {accessor["count"] for accessor in found.values()} == {cloud.n}
    assert document["buffers"] == [{"byteLength": len(binary)}]
    assert all(view["byteOffset"] % 4 == 0 for view in document["bufferViews"])
    turned = half_turn(cloud)
    at = document["bufferViews"][0]["byteOffset"]
    assert np.array_equal(np.frombuffer(binary, "<f4", cloud.n * 3, at).reshape(-1, 3), turned.means)
    # JSON numbers must be the stored floats: readers compare.
    assert np.array_equal(np.float32(found["POSITION"]["min"]), turned.means.min(0))
    assert np.array_equal(np.float32(found["POSITION"]["max"]), turned.means.max(0))
    rotations = np.frombuffer(binary, "<f4", cloud.n * 4, document["bufferViews"][1]["byteOffset"]).reshape(-1, 4)
    assert np.array_equal(np.roll(rotations, 1, 1), turned.quats)


def test_spz_is_version_3_with_all_20_bytes_of_every_gaussian(cloud, record, tmp_path):
    path = tmp_path / "head.spz"
    spz.write(path, cloud, record)
    data = gzip.decompress(path.read_bytes())
    assert len(data) == 16 + 20 * cloud.n
    assert struct.unpack_from("<4sIIBBBB", data) == (b"NGSP", 3, cloud.n, 0, 20, 0, 0)


def test_spz_gives_up_precision_for_heads_far_from_the_origin(cloud, record, tmp_path):
    path = tmp_path / "far.spz"
    far = cloud.replace(means=cloud.means + np.float32([500, 0, 0]))
    spz.write(path, far, record)
    assert np.abs(spz.read(path).means - far.means).max() <= 0.5 / (1 << 14)
    with pytest.raises(InputError, match="10000 m from the origin"):
        spz.write(path, cloud.replace(means=cloud.means + np.float32([10000, 0, 0])), record)
    assert path.is_file()


def test_spz_bounds_are_those_that_its_numbers_give():
    found = spz.bounds()
    stated = BOUNDS[".spz"]
    assert found["position"] <= stated.position
    assert found["opacity"] <= stated.opacity
    assert found["color"] <= stated.color
    assert found["scale"] <= stated.scale


# --- suffixes -------------------------------------------------------------------------------------------------------


def test_formats_are_found_by_suffix_and_an_unknown_one_lists_them():
    assert tuple(formats()) == tuple(sorted(SUFFIXES))
    assert format_of("HEAD.PLY") is ply
    with pytest.raises(
        InputError, match=r"suffix '\.gltb' .* \.glb, \.ply, \.spz, \.usdc, \.usdz; did you mean '\.glb'"
    ):
        format_of("head.gltb")
    with pytest.raises(InputError, match="a name without suffix"):
        format_of("head")


@pytest.mark.parametrize("name", ["me.compressed.ply", "me.v2.Compressed.PLY"])
def test_playcanvas_compressed_ply_is_not_taken_for_a_plain_one(name):
    plain = name[: -len(".compressed.ply")] + ".ply"
    with pytest.raises(InputError, match=rf"not written; export {plain} and convert it, .* {plain} {name}$"):
        format_of(name)
    assert format_of("compressed.ply") is format_of("me.v2.ply") is ply


def test_another_package_adds_a_format_by_an_entry_point(monkeypatch):
    from adapt.avatar.export import registry

    class Point:
        name, value = "toy", "toy:format"

        def __init__(self, **attributes):
            self.attributes = attributes

        def load(self):
            return type("Toy", (), self.attributes)

    whole = {"SUFFIXES": (".toy",), "AXES": "opencv", "write": None, "read": None}

    def offered(*points):
        registry.formats.cache_clear()
        monkeypatch.setattr(registry.metadata, "entry_points", lambda group: points if group == registry.GROUP else ())

    try:
        offered(Point(**whole))
        assert format_of("head.toy").AXES == "opencv"
        offered(Point(**{**whole, "SUFFIXES": (".compressed.ply",)}))
        assert format_of("head.compressed.ply").AXES == "opencv"
        assert format_of("head.ply") is ply
        offered(Point(SUFFIXES=(".toy",), AXES="opencv", write=None))
        with pytest.raises(InputError, match=r"'toy' \(toy:format\) lacks read"):
            formats()
        offered(Point(**{**whole, "SUFFIXES": (".ply",)}))
        with pytest.raises(InputError, match=r"'toy' claims \.ply"):
            formats()
    finally:
        registry.formats.cache_clear()


def test_without_usd_core_the_sentence_names_the_install_line(cloud, record, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(InputError, match=r"usd-core.*pip install 'headstart\[usd\]'"):
        usd.write(tmp_path / "head.usdc", cloud, record)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".usdc", ".usdz"])
def test_a_disk_that_usd_finds_full_is_one_sentence(cloud, record, tmp_path, monkeypatch, suffix):
    needs_usd(suffix)
    from pxr import Tf

    def full(stage, clouds):
        raise Tf.ErrorException("Error in 'WriteToAsset': 'Failed writing usdc data: No space left on device'")

    monkeypatch.setattr(usd._Stage, "fill", full)
    with pytest.raises(InputError, match=rf"cannot write .*head\{suffix}: the disk is full; free some space"):
        usd.write(tmp_path / f"head{suffix}", cloud, record)
    assert not list(tmp_path.iterdir())
