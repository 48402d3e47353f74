"""The tri-plane hash encoding: layout, interpolation, hash, backends."""

import copy

import pytest
import torch

from configs import InputError
from heads.motion.encoding import PRIME, HashGrid2D, TriPlaneHash, tinycudann_available


def reference(grid: HashGrid2D, table: torch.Tensor, point: list[float]) -> list[float]:
    """Plain-Python evaluation of the published formula, one point."""
    out = []
    for level in range(grid.levels):
        scale, side = float(grid.scales[level]), int(grid.sides[level])
        size, offset = int(grid.sizes[level]), int(grid.offsets[level])
        position = [scale * p + 0.5 for p in point]
        cell = [int(p) for p in position]
        fraction = [p - c for p, c in zip(position, cell)]
        values = [0.0] * grid.features
        for dx in (0, 1):
            for dy in (0, 1):
                x, y = cell[0] + dx, cell[1] + dy
                index = x + y * side if side * side <= size else x ^ ((y * PRIME) % 2**32)
                weight = (fraction[0] if dx else 1 - fraction[0]) * (fraction[1] if dy else 1 - fraction[1])
                for f in range(grid.features):
                    values[f] += weight * float(table[(index % size + offset) * grid.features + f])
        out += values
    return out


@pytest.mark.parametrize("log2_size", [17, 8])
def test_grid_equals_the_published_formula_dense_and_hashed(log2_size):
    grid = HashGrid2D(levels=5, features=2, log2_size=log2_size, base=4, finest=64)
    assert (grid.n_dense < grid.levels) == (log2_size == 8)
    table = torch.randn(grid.n_params, dtype=torch.float64)
    points = torch.rand(20, 2, dtype=torch.float64)
    points[0], points[1] = 0.0, 1.0
    expected = torch.tensor([reference(grid, table, p.tolist()) for p in points], dtype=torch.float64)
    torch.testing.assert_close(grid(points, table), expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_positions_and_table_are_exact():
    grid = HashGrid2D(levels=2, features=1, log2_size=17, base=4, finest=8)
    points = torch.rand(6, 2, dtype=torch.float64) * 0.9 + 0.05
    table = torch.randn(grid.n_params, dtype=torch.float64)
    assert torch.autograd.gradcheck(grid, (points.requires_grad_(), table.requires_grad_()), atol=1e-6)


@pytest.mark.parametrize("log2_size", [17, 8])
@pytest.mark.parametrize("features", [1, 2])
def test_the_kernels_equal_the_reference_dense_and_hashed(log2_size, features):
    torch.manual_seed(0)
    fast = TriPlaneHash(bound=1.0, levels=5, features=features, base=4, finest=64, log2_size=log2_size)
    with torch.no_grad():
        fast.params.normal_()
    slow = copy.deepcopy(fast).double()
    points = torch.rand(300, 3) * 2.4 - 1.2
    points[0], points[1] = 1.0, -1.0
    weights = torch.randn(300, fast.out_features)
    found = []
    for encoding in (fast, slow):
        at = points.to(encoding.params.dtype, copy=True).requires_grad_()
        out = encoding(at)
        (out * weights).sum().backward()
        found.append([out.float(), at.grad.float(), encoding.params.grad.float()])
    # Positions at the edge of a cell lie on either side of it in the two precisions: the value is the same, not its slope.
    inside = (found[0][1] - found[1][1]).abs().amax(1) < 1e-2
    assert inside.sum() >= 298
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[0][1][inside], found[1][1][inside], rtol=1e-3, atol=1e-2)
    torch.testing.assert_close(found[0][2], found[1][2], rtol=1e-3, atol=1e-3)


def test_the_papers_sizes_give_36_features_for_face_and_mouth():
    assert TriPlaneHash(base=16, finest=256).out_features == 36
    assert TriPlaneHash(base=64, finest=384).out_features == 36


def test_each_plane_sees_its_own_two_coordinates():
    encoding = TriPlaneHash(levels=2, base=4, finest=8)
    with torch.no_grad():
        encoding.params.normal_()
    moved = torch.tensor([[0.1, 0.2, 0.3], [0.1, 0.2, 0.9]])
    xy, yz, xz = encoding(moved).chunk(3, dim=-1)
    assert torch.equal(xy[0], xy[1])
    assert not torch.allclose(yz[0], yz[1])
    assert not torch.allclose(xz[0], xz[1])


def test_positions_outside_the_bound_or_not_finite_have_defined_values():
    encoding = TriPlaneHash(bound=1.0, levels=3, base=4, finest=16)
    with torch.no_grad():
        encoding.params.normal_()
    points = torch.tensor([[9.0, 9.0, 9.0], [1.0, 1.0, 1.0], [float("nan")] * 3, [0.0, 0.0, 0.0], [float("inf")] * 3])
    out = encoding(points)
    assert torch.isfinite(out).all()
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[2], out[3])
    assert encoding(torch.zeros(0, 3)).shape == (0, encoding.out_features)


def test_wrong_use_is_told():
    with pytest.raises(InputError, match="expected one of"):
        TriPlaneHash(backend="tcnn")
    with pytest.raises(InputError, match="finest >= base"):
        TriPlaneHash(base=16, finest=8)
    with pytest.raises(ValueError, match=r"expected shape \[..., 3\], got \(4, 2\)"):
        TriPlaneHash()(torch.zeros(4, 2))
    if not tinycudann_available():
        with pytest.raises(InputError, match="pip install"):
            TriPlaneHash(backend="tinycudann")


@pytest.mark.gpu
@pytest.mark.skipif(not tinycudann_available(), reason="tinycudann is not installed here")
def test_tinycudann_and_the_twin_agree():
    native, reference = TriPlaneHash(backend="tinycudann").cuda(), TriPlaneHash(backend="torch").cuda()
    with torch.no_grad():
        native.params.normal_()
    reference.load_state_dict(native.state_dict())
    points = torch.rand(4096, 3, device="cuda") * 5 - 2.5
    torch.testing.assert_close(native(points), reference(points), rtol=1e-3, atol=1e-3)
    grads = []
    for encoding in (native, reference):
        encoding(points).square().sum().backward()
        grads.append(encoding.params.grad)
    torch.testing.assert_close(*grads, rtol=1e-2, atol=1e-2)
