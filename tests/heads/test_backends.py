"""Rendering backends: how they are found and chosen, and that gsplat's is called as gsplat wants."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from types import SimpleNamespace

import pytest
import torch

from configs import InputError
from heads import rasterization
from heads.raster import registry
from heads.raster.backends import reference
from heads.raster.backends.base import Backend
from heads.raster.camera import Camera
from heads.raster.probes import Probe
from tests.support.raster_scenes import scene


@pytest.fixture
def fresh_registry():
    """The registry as a new process has it; what was found before comes back afterwards."""
    caches = (registry._imported, registry.backends, registry.default_backend, registry.find_backend)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


class Point:
    """An entry point of an installed package."""

    def __init__(self, name, value):
        self.name, self.value, self._loaded = name, "package.module:BACKEND", value

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def offered(monkeypatch, *points):
    monkeypatch.setattr(registry.metadata, "entry_points", lambda group: list(points))


def test_every_backend_has_the_same_parts_and_its_files_name():
    assert set(registry.backends()) == {"cpu", "gsplat", "reference"}
    for name, backend in registry.backends().items():
        assert backend.name == name == backend.probe().name
        for part, of in (("project", reference.project), ("rasterize", reference.rasterize)):
            ours = list(inspect.signature(getattr(backend, part)).parameters)
            assert ours == list(inspect.signature(of).parameters), f"{name}.{part}"


def test_the_default_is_chosen_by_device():
    assert registry.default_backend("cpu").name == "cpu"
    assert registry.default_backend("meta").name == "reference"


def test_the_reference_keeps_its_old_name():
    assert registry.find_backend("torch") is registry.find_backend("reference")
    assert rasterization(*scene(5, (8, 8)), backend="torch")[2]["backend"] == "reference"


def test_a_backend_that_cannot_be_used_is_refused_with_what_every_probe_said():
    with pytest.raises(InputError, match="did you mean 'gsplat'"):
        registry.find_backend("gplat")
    if not registry.probes()["gsplat"].ok:
        with pytest.raises(InputError, match=r"'gsplat' is not usable: cpu: usable \(numba.*gsplat: not usable.*refer"):
            rasterization(*scene(5, (8, 8)), backend="gsplat")


def test_other_packages_offer_backends_by_entry_point(fresh_registry, monkeypatch):
    mine = Backend(
        name="mine", probe=lambda: Probe("mine", True, "here"), project=reference.project,
        rasterize=reference.rasterize, devices=("cpu",), place=1,
    )  # fmt: skip
    offered(monkeypatch, Point("mine", mine))
    assert registry.default_backend("cpu").name == "mine"
    assert rasterization(*scene(5, (8, 8)))[2]["backend"] == "mine"


@pytest.mark.parametrize(
    ("point", "match"),
    [
        (Point("cpu", None), "the name is taken"),
        (Point("torch", None), "the name is taken"),
        (Point("mine", 3), r"expected a heads\.raster\.backends\.base\.Backend"),
        (Point("mine", dataclasses.replace(reference.BACKEND, name="other")), "whose name is 'mine'"),
    ],
)
def test_entry_points_that_are_no_backends_are_refused(fresh_registry, monkeypatch, point, match):
    offered(monkeypatch, point)
    with pytest.raises(InputError, match=match):
        registry.probes()


def test_an_entry_point_that_breaks_on_import_leaves_the_others_usable(fresh_registry, monkeypatch):
    offered(monkeypatch, Point("mine", ImportError("no such library")))
    assert registry.default_backend("cpu").name == "cpu"
    with pytest.raises(InputError, match="no such library"):
        registry.find_backend("mine")


# ---------------------------------------------------------------------------------------------------- gsplat


class FakeGsplat:
    """gsplat's functions with its own argument checks and tiling, and our reference for its CUDA kernels."""

    def __init__(self) -> None:
        self.real = pytest.importorskip("gsplat")
        self.plain = pytest.importorskip("gsplat.cuda._torch_impl")

    def _checked(self, name, args, kwargs):
        bound = inspect.signature(getattr(self.real, name)).bind(*args, **kwargs)
        bound.apply_defaults()
        return SimpleNamespace(**bound.arguments)

    def fully_fused_projection(self, *args, **kwargs):
        a = self._checked("fully_fused_projection", args, kwargs)
        assert a.covars is None
        assert not a.packed
        camera = Camera(a.width, a.height, a.near_plane, a.far_plane, a.eps2d, a.radius_clip)
        means2d, conics, depths, radii, compensations = reference.project(
            a.means, a.quats, a.scales, a.opacities, a.viewmats, a.Ks, camera, a.calc_compensations
        )
        return radii, means2d, depths, conics, compensations if a.calc_compensations else None

    def isect_tiles(self, *args, **kwargs):
        a = self._checked("isect_tiles", args, kwargs)
        self.seen = a
        flat = [x.flatten(0, -1 - tail) for x, tail in ((a.means2d, 2), (a.radii, 2), (a.depths, 1))]
        return self.plain._isect_tiles(*flat, a.tile_size, a.tile_width, a.tile_height)

    def isect_offset_encode(self, *args, **kwargs):
        a = self._checked("isect_offset_encode", args, kwargs)
        return self.plain._isect_offset_encode(a.isect_ids, a.n_images, a.tile_width, a.tile_height)

    def rasterize_to_pixels(self, *args, **kwargs):
        a = self._checked("rasterize_to_pixels", args, kwargs)
        lead, number = a.means2d.shape[:-2], a.means2d.shape[-2]
        assert a.conics.shape == (*lead, number, 3)
        assert a.opacities.shape == (*lead, number)
        assert a.colors.shape[:-1] == (*lead, number)
        assert a.backgrounds is None or a.backgrounds.shape == (*lead, a.colors.shape[-1])
        assert a.isect_offsets.shape == (*lead, -(-a.image_height // a.tile_size), -(-a.image_width // a.tile_size))
        assert len(a.flatten_ids) >= int((self.seen.radii > 0).all(-1).sum())
        images = len(self.seen.depths.flatten(0, -2))

        def one(x):
            return x.reshape(images, 1, *x.shape[len(lead) :])

        backgrounds = None if a.backgrounds is None else one(a.backgrounds)
        render, alphas = reference.rasterize(
            one(a.means2d), one(a.conics), one(self.seen.depths), one(self.seen.radii), one(a.opacities),
            one(a.colors), backgrounds, Camera(a.image_width, a.image_height),
        )  # fmt: skip
        return render.reshape(*lead, *render.shape[2:]), alphas.reshape(*lead, *alphas.shape[2:])


@pytest.fixture
def gsplat_on_cpu(fresh_registry, monkeypatch):
    backend = registry.backends()["gsplat"]
    usable = dataclasses.replace(
        backend, probe=lambda: Probe("gsplat", True, "stand-in"), devices=("cpu",), dtypes=(torch.float64,)
    )
    monkeypatch.setattr("heads.raster.backends.gsplat.BACKEND", usable)
    registry._imported.cache_clear()
    registry.backends.cache_clear()
    monkeypatch.setitem(sys.modules, "gsplat", FakeGsplat())


@pytest.mark.parametrize(("lead", "cameras"), [((), 1), ((2,), 3)])
@pytest.mark.parametrize("options", [
    {}, {"render_mode": "RGB+ED"}, {"render_mode": "D"}, {"rasterize_mode": "antialiased"}, {"background": True},
])  # fmt: skip
def test_gsplat_is_called_with_the_arguments_and_shapes_that_it_wants(gsplat_on_cpu, lead, cameras, options):
    arguments = scene(60, (40, 28), lead=lead, cameras=cameras, seed=2)
    options = dict(options)
    if options.pop("background", False):
        options["backgrounds"] = torch.rand(*lead, cameras, 3, dtype=torch.float64)
    ours = rasterization(*arguments, backend="gsplat", **options)
    plain = rasterization(*arguments, backend="reference", **options)
    assert ours[2]["backend"] == "gsplat"
    for a, b in zip(ours[:2], plain[:2]):
        torch.testing.assert_close(a, b)
    for name in ("means2d", "radii", "depths", "conics", "opacities"):
        torch.testing.assert_close(ours[2][name], plain[2][name])


def test_gsplats_backend_keeps_the_gradient_of_the_projected_means(gsplat_on_cpu):
    arguments = [t.requires_grad_(True) if k < 6 else t for k, t in enumerate(scene(20, (16, 16)))]
    picture, _, meta = rasterization(*arguments, backend="gsplat")
    meta["means2d"].retain_grad()
    picture.sum().backward()
    assert meta["means2d"].grad.abs().sum() > 0


def test_gsplats_backend_draws_the_background_of_an_empty_scene(gsplat_on_cpu):
    arguments = scene(0, (6, 4))
    background = torch.rand(1, 3, dtype=torch.float64)
    picture, alpha, meta = rasterization(*arguments, backend="gsplat", backgrounds=background)
    torch.testing.assert_close(picture, background[:, None, None].expand(1, 4, 6, 3))
    assert not alpha.any()
    assert meta["means2d"].shape == (1, 0, 2)


def test_gsplats_backend_says_what_it_does_not_take(gsplat_on_cpu):
    with pytest.raises(InputError, match=r"clamps alpha at 0\.999, got alpha_clamp=0\.99"):
        rasterization(*scene(5, (8, 8)), backend="gsplat", alpha_clamp=0.99)
    with pytest.raises(InputError, match=r"renders torch\.float64, got torch\.float32"):
        rasterization(*scene(5, (8, 8), dtype=torch.float32), backend="gsplat")
