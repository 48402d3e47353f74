"""Gaussians as a ``.ply`` in the convention of 3D Gaussian Splatting, which standard viewers open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from cluster.storage.staging import staged

# Degree-0 spherical harmonic: viewers show 0.5 + C0 * f_dc.
SH_C0 = 0.28209479177387814
MEAN_EYE_DISTANCE = 0.063  # metres in one rig unit


def write_ply(
    path: str | Path,
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    colors: np.ndarray,
    *,
    comments: tuple[str, ...] = (),
) -> None:
    """Write ``N`` Gaussians, binary little-endian, atomically.

    Args:
        means: ``[N, 3]``, metres, OpenCV axes (x right, y down, z forward), as 3DGS files have them.
        quats: ``[N, 4]`` wxyz, any length.
        scales: ``[N, 3]`` standard deviations, metres; stored as logarithms.
        opacities: ``[N]`` in (0, 1); stored as logits.
        colors: ``[N, 3]`` RGB in [0, 1]; stored as degree-0 coefficients.
        comments: header comments, one line each.
    """
    count = len(means)
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
    names += [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)]
    alpha = np.clip(opacities, 1e-6, 1 - 1e-6)
    unit = quats / np.maximum(np.linalg.norm(quats, axis=1, keepdims=True), 1e-12)
    columns = [
        means,
        np.zeros((count, 3)),
        (np.clip(colors, 0.0, 1.0) - 0.5) / SH_C0,
        np.log(alpha / (1 - alpha))[:, None],
        np.log(np.maximum(scales, 1e-9)),
        unit,
    ]
    rows = np.concatenate(columns, 1).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0"]
    header += [f"comment {' '.join(comment.split())}" for comment in comments]
    header += [f"element vertex {count}", *(f"property float {name}" for name in names), "end_header"]
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(("\n".join(header) + "\n").encode("ascii", "replace") + rows.tobytes())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_ply(path: str | Path) -> dict[str, np.ndarray]:
    """The columns of a binary little-endian float PLY such as :func:`write_ply` makes, by property name."""
    data = Path(path).read_bytes()
    end = data.index(b"end_header\n") + len(b"end_header\n")
    header = data[:end].decode("ascii").splitlines()
    count = int(next(line.split()[2] for line in header if line.startswith("element vertex")))
    names = [line.split()[2] for line in header if line.startswith("property float")]
    rows = np.frombuffer(data, "<f4", count * len(names), end).reshape(count, len(names))
    return {name: rows[:, i] for i, name in enumerate(names)}


@staged(reads=("avatar",), writes="out")
def export(
    avatar: str | Path, out: str | Path, *, frame: int | None = None, device: str = "cpu", overwrite: bool = False
) -> dict[str, Any]:
    """Write one moment of an avatar's head as ``.ply``.

    Args:
        avatar: the avatar's folder or ``s3://`` URL.
        out: the ``.ply`` to make, a path or an ``s3://`` URL.
        frame: a frame of the clip that the avatar was adapted to; ``None`` is the neutral head.
        overwrite: replace an existing file.

    Returns:
        ``{"ply", "gaussians", "bytes"}``.

    Raises:
        InputError: no avatar, frame out of range, ``out`` exists or is no ``.ply``.
    """
    from adapt.avatar.avatar import load_avatar
    from adapt.outputs import claim

    out = claim(out, suffix=".ply", overwrite=overwrite)
    opened = load_avatar(avatar, device=device)
    gaussians = opened.gaussians(frame)
    arrays = {name: getattr(gaussians, name)[0].detach().cpu().numpy() for name in
              ("means", "quats", "scales", "opacities", "colors")}  # fmt: skip
    write_ply(
        out,
        arrays["means"] * MEAN_EYE_DISTANCE,
        arrays["quats"],
        arrays["scales"] * MEAN_EYE_DISTANCE,
        arrays["opacities"],
        arrays["colors"],
        comments=(opened.provenance("").statement().replace("video", "head"), "units metres"),
    )
    return {"ply": str(out), "gaussians": len(arrays["means"]), "bytes": out.stat().st_size}
