"""What a page needs of an avatar: head, driver, poses, as arrays and parts of one document."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from adapt.avatar.avatar import PLAIN, Avatar
from adapt.drivers.arkit import GAZE, NAMES, WIDE, arkit_map
from adapt.drivers.base import Bounds
from adapt.drivers.blendshapes import LIVE_LINK_FPS
from adapt.drivers.loudness import LoudnessDriver
from adapt.drivers.prior import PriorDriver
from adapt.drivers.ridge import PAST, RidgeDriver
from adapt.models.rigged import RiggedHead
from adapt.talk.activity import voice_weights
from adapt.talk.blinks import BLINK, Blinks
from adapt.talk.level import BELOW, QUIETER, SILENCE, USUAL
from adapt.talk.poses import FixedPose, GeneratedPoses
from adapt.talk.silence import resting_expression
from adapt.web.arrays import Document, Packer
from adapt.web.sound import closing_document
from configs import InputError
from heads.person.appearance import STEP
from heads.person.residual import CoefficientNet

BLINK_WINDOWS = 900  # of 4 s: an hour of blinks before they repeat


def add_head(packer: Packer, avatar: Avatar) -> Document:
    """Pack the rig with the person's identity, Gaussians, residuals and body layer; returns their part of the document.

    Raises:
        InputError: a recipe whose head the page cannot compute.
    """
    model = rigged(avatar)
    talking, rig = model.talking, avatar.rig
    _add_rig(packer, avatar, talking.identity.detach())
    uv = talking.uv
    packer.add_index("faces", rig.faces.cpu())
    packer.add_index("triangles", uv.triangles.cpu())
    packer.add("weights", uv.barycentric[:, 1:].cpu(), "f16")
    for name in ("offsets", "quats", "log_scales", "colors"):
        packer.add(name, _numbers(getattr(talking, name)), "f16")
    packer.add("opacities", _numbers(talking.opacities)[:, 0], "f16")
    if talking.color is not None:
        _add_net(packer, "color", talking.color.net)
        packer.add_steps("color.basis", _numbers(talking.color.basis))
    if talking.offset is not None:
        _add_net(packer, "offset", talking.offset.net)
        packer.add_steps("offset.basis", _numbers(talking.offset.basis))
    if talking.correction is not None:
        _add_net(packer, "correction", talking.correction.net)
        packer.add("correction.basis", _numbers(talking.correction.basis * talking.correction_scale()))
    document: Document = {"expression": rig.n_expression, "appearance_step": STEP}
    _add_appearance(packer, model)
    return document | _add_backdrop(packer, model)


def rigged(avatar: Avatar) -> RiggedHead:
    """The avatar's head.

    Raises:
        InputError: a recipe whose head the page cannot compute.
    """
    model, recipe = avatar.model, avatar.document["recipe"]
    if not isinstance(model, RiggedHead):
        raise InputError(
            f"avatar '{avatar.name}': recipe '{recipe}' moves every Gaussian by a network, which the page cannot do in "
            "time; adapt with --recipe headstart, or export frames with --audio and a .usdz file"
        )
    if len(model.motion):
        raise InputError(
            f"avatar '{avatar.name}' was adapted with residual_motion=true, whose networks the page does not run; "
            "adapt without it, or export frames with --audio and a .usdz file"
        )
    return model


def _add_rig(packer: Packer, avatar: Avatar, identity: torch.Tensor) -> None:
    rig = avatar.rig
    with torch.no_grad():
        still = rig.vertices(identity[None], torch.zeros(1, rig.n_expression, device=identity.device))[0]
        lids = rig.eyelids * rig.lid_scale(identity[None])[0][:, None, None]
        centres = rig.eyeball_positions(identity[None])[0]
    packer.add("vertices", _numbers(still))
    packer.add("expression", _numbers(rig.expression.flatten(1)), "f16")
    packer.add("eyelids", _numbers(lids.flatten(1)), "f16")
    packer.add("eyeball_vertices", rig.eyeball_vertices.cpu(), "u8")
    packer.add("eyeball_centres", _numbers(centres))


def _add_net(packer: Packer, name: str, net: CoefficientNet) -> None:
    packer.add(f"{name}.center", _numbers(net.center))
    packer.add(f"{name}.scale", _numbers(net.scale))
    packer.add(f"{name}.linear", _numbers(net.linear.weight))
    if net.mlp is not None:
        first, _, last = net.mlp
        for part, layer in (("hidden", first), ("out", last)):
            assert isinstance(layer, nn.Linear)
            packer.add(f"{name}.{part}.weight", _numbers(layer.weight))
            packer.add(f"{name}.{part}.bias", _numbers(layer.bias))


def _add_appearance(packer: Packer, model: RiggedHead) -> None:
    basis = model.talking.appearance_basis
    if basis is None:
        return
    _add_net(packer, "appearance", basis.net)
    packer.add("appearance.code", _numbers(basis.code))
    packer.add("appearance.zero", _numbers(basis.here + basis.code @ basis.origin))
    packer.add_steps("appearance.basis", _numbers(basis.basis))
    packer.add_index("appearance.row", basis.row.cpu())


def _add_backdrop(packer: Packer, model: RiggedHead) -> Document:
    backdrop = model.backdrop
    for name in ("center", "scale"):
        packer.add(f"backdrop.{name}", _numbers(getattr(backdrop, name)))
    packer.add("backdrop.bend", _numbers(backdrop.bend.weight))
    packer.add_picture("backdrop.background", _numbers(backdrop.behind(*backdrop.size)[0]))
    packer.add_picture("backdrop.body", _numbers(backdrop.body[0]))
    packer.add_picture("backdrop.alpha", _numbers(torch.sigmoid(backdrop.body_alpha[0, 0])))
    return {"backdrop_grid": list(backdrop.grid), "backdrop_reach": backdrop.reach}


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().numpy()


# --- what moves it --------------------------------------------------------------------------------------------------


def add_driver(packer: Packer, avatar: Avatar) -> Document:
    """Pack the regression or loudness driver of the page, speech detection, and the bounds of its expressions."""
    bounds, driver = Bounds(avatar.track["expression"]), avatar.driver
    for name in ("low", "high", "mean", "scale"):
        packer.add(f"bounds.{name}", getattr(bounds, name))
    packer.add("rest", resting_expression(avatar.track))
    for name, weight in voice_weights().items():
        packer.add(f"voice.{name}", weight.numpy(), "f16")  # as they are stored
    spoken = driver.regression if isinstance(driver, PriorDriver) else driver
    if isinstance(spoken, RidgeDriver):
        for prefix, part in (("ridge.", spoken), ("ridge.quick.", spoken.low_delay())):
            for name in ("mean", "spread", "weight", "bias"):
                packer.add(f"{prefix}{name}", getattr(part, name))
    else:
        spoken = (
            spoken if isinstance(spoken, LoudnessDriver) else LoudnessDriver.of(avatar.rig, avatar.track["expression"])
        )
        packer.add("loudness.rest", spoken.rest)
        packer.add("loudness.jaw", spoken.jaw)
    closing = driver.closing if isinstance(driver, PriorDriver | RidgeDriver) else None
    return {
        "name": driver.name,
        "regression": spoken.name,
        "farthest": bounds.farthest,
        "past": PAST,
        "level": {
            "clip": avatar.document["clip"].get("level", USUAL),
            "silence": SILENCE,
            "below": BELOW,
            "quieter": QUIETER,
        },
        "closing": closing_document(closing),
    }


def add_poses(packer: Packer, avatar: Avatar, seed: int = 0) -> Document:
    """Pack the clip's poses and gaze; returns the constants of the other pose sources."""
    rotation, translation = avatar.track["rotation"], avatar.track["translation"]
    packer.add("track.rotation", rotation)
    packer.add("track.translation", translation)
    packer.add("track.gaze", avatar.track["gaze"].reshape(len(rotation), 4))
    still, sway = FixedPose(rotation, translation), GeneratedPoses(rotation, translation, seed)
    pose = still.at(np.zeros(1, np.int64))
    generated = {name: getattr(sway, name).tolist() for name in ("centre", "spread", "hertz", "phase", "weight")}
    return {
        "pivot": still.pivot.tolist(),
        "still": {
            "rotation": pose.rotation[0].ravel().tolist(),
            "translation": pose.translation[0].tolist(),
            "source": int(pose.source[0]),
        },
        "generated": {**generated, "source": sway.source},
    }


def blink_table(seed: int = 0) -> Document:
    """The first frame of the blink in every window of :class:`adapt.talk.blinks.Blinks`, and a blink's closures."""
    blinks = Blinks(seed=seed)
    numbers = np.arange(BLINK_WINDOWS * blinks.window)
    closed = blinks.at(numbers)[:, 0].reshape(BLINK_WINDOWS, blinks.window)
    return {"window": blinks.window, "shape": BLINK.tolist(), "starts": (closed > 0).argmax(1).tolist()}


def control_table(avatar: Avatar) -> dict[str, dict[str, list[float]]]:
    """The rig's named controls at amount 1; those that do nothing are left out."""
    table = {}
    for name in avatar.rig.controls:
        delta = {key: value.cpu().numpy().ravel().tolist() for key, value in avatar.rig.control(name).items()}
        if any(any(values) for values in delta.values()):
            table[name] = delta
    return table


def add_arkit(packer: Packer, avatar: Avatar) -> Document | None:
    """Pack the map from 52 ARKit weights to the rig; ``None`` for a rig that has none."""
    try:
        mapping = arkit_map(avatar.rig)
    except InputError:
        return None
    packer.add("arkit.expression", mapping.expression)
    return {"names": list(NAMES), "gaze": GAZE, "wide": WIDE, "csv_fps": LIVE_LINK_FPS}


def plain_color() -> list[float]:
    """The colour of ``--background plain``, RGB in [0, 1]."""
    return list(PLAIN)
