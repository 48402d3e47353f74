"""What we use of numba beyond its public interface, named one by one, and what happens without it.

When a new numba breaks one of these, the name of the test says which; until it is repaired, kernels are kept by numba's
public cache (:mod:`heads.raster.simd.caching`) or rendering falls back to the reference backend.
"""

from __future__ import annotations

import re
from pathlib import Path

import numba
import numpy as np
import pytest

from heads.raster import registry
from heads.raster.simd import caching, jit

ROOT = Path(__file__).parents[2]


def test_numba_still_has_the_private_caching_classes_that_kernels_are_kept_with():
    assert caching.BROKEN == ""
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

    assert hasattr(FunctionCache, "_impl_class")
    assert hasattr(CompileResultCacheImpl, "_locator_classes")
    for name in ("ensure_cache_path", "get_cache_path", "get_source_stamp", "get_disambiguator", "from_function"):
        assert hasattr(_CacheLocator, name), name


def test_only_one_module_imports_numbas_private_caching():
    users = [p for p in (ROOT / "heads").rglob("*.py") if "numba.core.caching" in p.read_text(encoding="utf-8")]
    assert [p.name for p in users] == ["caching.py"]


def test_the_installed_numba_is_below_the_bound_of_pyproject():
    bound = re.search(r'"numba>=[\d.]+,<([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert bound, "pyproject.toml: numba needs an upper bound, as we use private parts of it"
    installed = [int(part) for part in numba.__version__.split(".")[:2]]
    assert installed < [int(part) for part in bound[1].split(".")[:2]]


def test_kernels_are_kept_by_the_public_cache_where_the_private_one_is_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    monkeypatch.setattr(caching, "BROKEN", "other internals")
    before = numba.config.CACHE_DIR

    @jit.kernel
    def double(a):
        for i in range(len(a)):
            a[i] *= 2

    values = np.ones(3)
    double(values)
    assert values.tolist() == [2, 2, 2]
    assert list((tmp_path / "kernels").glob(f"public-{caching.source_stamp()[:12]}/**/*.nbi"))
    assert before == numba.config.CACHE_DIR


def test_kernels_compile_without_any_cache_where_neither_can_write(monkeypatch):
    monkeypatch.setenv("HEADSTART_CACHE", "/dev/null/nowhere")
    monkeypatch.setattr(caching, "BROKEN", "other internals")

    @jit.kernel
    def negated(a):
        for i in range(len(a)):
            a[i] = -a[i]

    values = np.ones(2)
    negated(values)
    assert values.tolist() == [-1, -1]


@pytest.fixture
def fresh_registry():
    """The registry as a new process has it; what was found before comes back afterwards."""
    caches = (registry._imported, registry.backends, registry.default_backend, registry.find_backend)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_rendering_falls_back_to_the_reference_where_the_vector_type_cannot_be_made(fresh_registry, monkeypatch):
    real = registry.import_module

    def broken(name):
        if name.endswith(".cpu"):
            raise AttributeError("module 'numba.extending' has no attribute 'models'")
        return real(name)

    monkeypatch.setattr(registry, "import_module", broken)
    assert registry.default_backend("cpu").name == "reference"
    assert "no attribute 'models'" in registry.probes()["cpu"].detail
    assert not registry.rendering_check()["ok"]


def test_a_kernels_cache_depends_on_its_own_file_too(tmp_path):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("a = 1")
    other.write_text("a = 2")
    assert len({caching.source_stamp(), caching.source_stamp(str(one)), caching.source_stamp(str(other))}) == 3
    inside = caching.__file__
    assert caching.source_stamp(inside) == caching.source_stamp(), "counted once"
