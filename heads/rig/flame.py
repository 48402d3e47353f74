"""FLAME (Li et al. 2017) from the user's own copy, posed by ``smplx``, behind the rig's interface.

The model's licence forbids shipping it, so the user gives a path. Pickles are read by an unpickler that builds NumPy and
SciPy arrays and nothing else, so that a file cannot run code.
"""

from __future__ import annotations

import importlib.util
import io
import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from configs import InputError
from heads.rig.completion import REGIONS
from heads.rig.correspondence import read_landmarks
from heads.rig.mediapipe import accepts as is_rig_file
from heads.rig.packing import packed_atlas
from heads.rig.rig import Rig, RigKind

SUFFIXES = (".npz", ".pkl", ".safetensors")
NEEDED = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
SHAPES, EXPRESSIONS = 100, 50  # coefficients used, of the model's 300 and 100
SHAPE_SPACE = 300  # where expressions begin in the model's joint basis
JAW, EYE_LEFT, EYE_RIGHT = 2, 3, 4  # joints
# Vertex groups of FLAME_masks to regions; later groups override earlier ones.
MASKS = {
    "face": "face", "scalp": "cranium", "boundary": "neck", "neck": "neck", "left_ear": "ear", "right_ear": "ear",
    "left_eye_region": "eye_left", "right_eye_region": "eye_right", "lips": "lips",
    "left_eyeball": "eyeball_left", "right_eyeball": "eyeball_right",
}  # fmt: skip
SAFE = {
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
    ("numpy", "dtype"), ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("scipy.sparse.csc", "csc_matrix"), ("scipy.sparse._csc", "csc_matrix"), ("scipy.sparse.csr", "csr_matrix"),
    ("scipy.sparse._csr", "csr_matrix"), ("scipy.sparse.coo", "coo_matrix"), ("scipy.sparse._coo", "coo_matrix"),
    ("_codecs", "encode"), ("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"),
    ("builtins", "object"), ("__builtin__", "object"),
}  # fmt: skip


class FlameRig(Rig):
    """FLAME as a rig: ``expression`` is the model's expressions followed by the jaw's rotation vector (radians).

    Head space, units and sides are those of every rig. FLAME has no lid blend shapes: eyelids must be ``None`` or zero.
    """

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        super().__init__(arrays)
        self._model = {
            key: torch.from_numpy(np.ascontiguousarray(arrays[key], np.float32))
            for key in ("template", "directions", "pose_directions", "regressor", "skinning", "origin")
        }
        self._parents = torch.from_numpy(np.ascontiguousarray(arrays["parents"], np.int64))
        self._scale = float(arrays["scale"])

    def _copy(self, device: torch.device | str) -> Rig:
        other = super()._copy(device)
        if isinstance(other, FlameRig):
            other._model = {key: value.to(device) for key, value in self._model.items()}
            other._parents = self._parents.to(device)
        return other

    def vertices(
        self, identity: Tensor, expression: Tensor, eyelids: Tensor | None = None, gaze: Tensor | None = None
    ) -> Tensor:
        from smplx.lbs import lbs

        identity, expression = self._checked("identity", identity), self._checked("expression", expression)
        if eyelids is not None and bool((eyelids != 0).any()):
            raise InputError(f"rig {self.name} has no eyelids; pass zeros, or use a rig that has them")
        batch = max(len(identity), len(expression))
        betas = torch.cat([identity.expand(batch, -1), expression[:, :-3].expand(batch, -1)], 1)
        pose = identity.new_zeros(batch, 5, 3)
        pose[:, JAW] = expression[:, -3:]
        if gaze is not None:
            # Yaw towards +x rotates about the model's upward y; pitch towards +y (down) rotates about its x.
            pose[:, EYE_LEFT:] = torch.stack([gaze[..., 1], gaze[..., 0], torch.zeros_like(gaze[..., 0])], -1)
        model = self._model
        points, _ = lbs(
            betas,
            pose.flatten(1),
            model["template"][None].expand(batch, -1, -1),
            model["directions"],
            model["pose_directions"],
            model["regressor"],
            self._parents,
            model["skinning"],
        )
        return (points - model["origin"]) * points.new_tensor([1.0, -1.0, -1.0]) * self._scale


def accepts(path: Path) -> bool:
    """Whether the path is a file of arrays that could be FLAME, or a folder that holds one."""
    if path.is_dir():
        return bool(_in_folder(path))
    return path.suffix in SUFFIXES and not is_rig_file(path)


def load(path: Path | None = None) -> FlameRig:
    """FLAME from ``.npz``, ``.safetensors`` or ``.pkl``, or from a folder that holds one.

    UVs and masks come from ``FLAME_texture.npz`` and ``FLAME_masks.pkl`` next to it if they exist, FaceMesh's landmarks
    from ``landmarks.json``; FLAME itself defines none.

    Raises:
        InputError: no path, an unreadable file, code in the pickle, missing keys or shapes that do not fit; ``smplx`` is not
            installed.
    """
    _require_smplx()
    if path is None:
        raise InputError("rig 'flame': expected a path, as in flame:/path/to/FLAME_NEUTRAL.pkl")
    if path.is_dir():
        files = _in_folder(path)
        if not files:
            raise InputError(f"rig folder '{path}': found no FLAME*.npz, .safetensors or .pkl")
        path = files[0]
    model = _checked(read_arrays(path), path)
    return FlameRig(_arrays(model, path))


def _in_folder(path: Path) -> list[Path]:
    files = path.iterdir() if path.is_dir() else ()
    named = (file for file in files if file.suffix in SUFFIXES and "FLAME" in file.name.upper())
    return sorted(file for file in named if not file.stem.upper().startswith(("FLAME_TEXTURE", "FLAME_MASKS")))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz``, ``.safetensors`` or ``.pkl`` file, without running code that it holds.

    Raises:
        InputError: not such a file, or a pickle that needs more than arrays.
    """
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                return {key: file[key] for key in file.files}
        if path.suffix == ".safetensors":
            from safetensors.numpy import load_file

            return dict(load_file(str(path)))
        found = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except InputError:
        raise
    except Exception as error:  # whatever a damaged or hostile file provokes, the user gets one sentence
        raise InputError(f"rig '{path}': cannot be read as arrays ({type(error).__name__}: {error})") from None
    if not isinstance(found, dict):
        raise InputError(f"rig '{path}': holds a {type(found).__name__}, expected a dictionary of arrays")
    return {str(key): _dense(value) for key, value in found.items() if _is_array(value)}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy and scipy arrays; ``chumpy`` arrays, which old FLAME files hold, by their values."""

    def find_class(self, module: str, name: str) -> object:
        if (module, name) in SAFE:
            return super().find_class(module, name)
        if module.split(".")[0] == "chumpy" and name == "Ch":
            return _Chumpy
        raise InputError(f"a pickle that asks for {module}.{name} can run code and is refused; save it as .npz instead")


class _Chumpy:
    """Stands in for ``chumpy.Ch``; only the array is kept."""

    def __setstate__(self, state: object) -> None:
        self.x = state.get("x") if isinstance(state, dict) else None


def _is_array(value: object) -> bool:
    return isinstance(value, (np.ndarray, _Chumpy)) or hasattr(value, "toarray")


def _dense(value: object) -> np.ndarray:
    if isinstance(value, _Chumpy):
        return np.asarray(value.x)
    return value.toarray() if hasattr(value, "toarray") else np.asarray(value)


def _checked(model: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    missing = [key for key in NEEDED if key not in model]
    if missing:
        raise InputError(f"rig '{path}': FLAME needs {', '.join(NEEDED)}; missing {', '.join(missing)}")
    n = len(model["v_template"])
    expected = {"v_template": (n, 3), "weights": (n, 5), "J_regressor": (5, n)}
    for key, shape in expected.items():
        if model[key].shape != shape:
            raise InputError(f"rig '{path}': {key} has shape {model[key].shape}, expected {shape}")
    if model["shapedirs"].shape[:2] != (n, 3) or model["posedirs"].shape != (n, 3, 36):
        raise InputError(f"rig '{path}': shapedirs or posedirs do not belong to {n} vertices")
    if model["f"].min() < 0 or model["f"].max() >= n:
        raise InputError(f"rig '{path}': triangles name vertices beyond {n}")
    return model


def _arrays(model: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The rig's arrays; the linear bases only serve shared code (sizes, digest), since ``smplx`` does the posing."""
    template, faces = model["v_template"].astype(np.float64), model["f"].astype(np.int64)
    joints = model["J_regressor"] @ template
    scale = 1 / np.linalg.norm(joints[EYE_LEFT] - joints[EYE_RIGHT])
    origin = (joints[EYE_LEFT] + joints[EYE_RIGHT]) / 2
    total = model["shapedirs"].shape[2]
    # Short files, as smplx also accepts, hold as many shapes as expressions.
    first = SHAPE_SPACE if total > SHAPE_SPACE else total // 2
    shapes = model["shapedirs"][:, :, : min(SHAPES, first)]
    expressions = model["shapedirs"][:, :, first : first + EXPRESSIONS]
    flip = np.array([1, -1, -1]) * scale
    identity = shapes.transpose(2, 0, 1) * flip
    linear = np.concatenate([expressions.transpose(2, 0, 1) * flip, _jaw_motion(template, model, joints) * flip])
    regions, names = _regions(template, faces, joints, path)
    return {
        "name": np.array(f"flame/{path.stem}"),
        "mean": (template - origin) * flip,
        "identity": identity,
        "expression": linear,
        "eyelids": np.zeros((2, *template.shape)),
        "lid_gap": np.zeros((2, len(template))),
        "eyeball_centres": (joints[[EYE_LEFT, EYE_RIGHT]] - origin) * flip,
        "eyeball_identity": np.einsum("jv,kvc->kjc", model["J_regressor"][[EYE_LEFT, EYE_RIGHT]], identity),
        "eyeball_vertices": np.argmax(
            np.stack([np.full(len(template), 0.5), model["weights"][:, EYE_LEFT], model["weights"][:, EYE_RIGHT]]), 0
        ),
        "faces": faces,
        "face_uvs": _uvs(path, faces),
        "face_regions": regions,
        "region_names": names,
        "control_names": np.array(["jaw"]),
        "control_expression": np.eye(len(linear))[[-3]] * 0.35,
        "landmark_vertices": _landmarks(path, len(template)),
        "template": template,
        "directions": np.concatenate([shapes, expressions], 2),
        "pose_directions": model["posedirs"].reshape(-1, 36).T,
        "regressor": model["J_regressor"],
        "skinning": model["weights"],
        "parents": np.where(model["kintree_table"][0] > 10, -1, model["kintree_table"][0]).astype(np.int64),
        "origin": origin,
        "scale": np.array(scale),
    }


def _landmarks(path: Path, n_vertices: int) -> np.ndarray:
    named = read_landmarks(path.parent, n_vertices)
    return np.zeros(0, np.int64) if named is None else named


def _jaw_motion(template: np.ndarray, model: dict[str, np.ndarray], joints: np.ndarray) -> np.ndarray:
    """``[3, V, 3]``: displacements per radian of a small jaw rotation about each axis."""
    arm = template - joints[JAW]
    return np.cross(np.eye(3)[:, None], arm[None]) * model["weights"][None, :, JAW, None]


def _regions(template: np.ndarray, faces: np.ndarray, joints: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Labels ``[F]`` and names: from FLAME's masks, or roughly from the geometry without them."""
    label = np.full(len(template), REGIONS.index("face"))
    beside = path.parent / "FLAME_masks.pkl"
    if beside.exists():
        masks = read_arrays(beside)
        for group, region in MASKS.items():
            if group in masks:
                label[masks[group].astype(int)] = REGIONS.index(region)
    else:
        eyes = joints[[EYE_LEFT, EYE_RIGHT]].mean(0)
        label[(template[:, 2] < eyes[2] - 0.05) | (template[:, 1] > eyes[1] + 0.06)] = REGIONS.index("cranium")
        label[template[:, 1] < joints[JAW, 1] - 0.09] = REGIONS.index("neck")
    return label[faces].max(1), np.array(REGIONS)


def _uvs(path: Path, faces: np.ndarray) -> np.ndarray:
    texture = path.parent / "FLAME_texture.npz"
    if texture.exists():
        with np.load(texture, allow_pickle=False) as file:
            if {"vt", "ft"} <= set(file.files) and file["ft"].shape == faces.shape:
                uvs = file["vt"][file["ft"]]
                return np.stack([uvs[..., 0], 1 - uvs[..., 1]], -1)
    return packed_atlas(len(faces))


def _require_smplx() -> None:
    if importlib.util.find_spec("smplx") is None:
        raise InputError("FLAME needs smplx: pip install 'headstart[rigs]'")


RIG = RigKind(name="flame", about="a FLAME model (.npz, .safetensors, .pkl) or its folder", accepts=accepts, load=load)
