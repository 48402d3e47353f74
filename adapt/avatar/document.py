"""What ``avatar.json`` says, key by key."""

from __future__ import annotations

from typing import TypedDict

from cluster.storage.trees import Entry
from configs.records import FeatureRecord


class PriorRecord(TypedDict):
    """What an avatar remembers of a prior.

    Attributes:
        name: its kind, such as ``audio-expression``; role: of :mod:`pretrain.roles`, absent in avatars of version 0.1.
        version: of the registry, else the start of its hash; sha256: of its weights.
        uri: where it was found.
        features: the audio feature that it uses.
    """

    name: str
    role: str
    version: str
    sha256: str
    uri: str
    features: FeatureRecord | None


class VisualPrior(TypedDict):
    """The prior that a head's appearance began from."""

    name: str
    version: str
    sha256: str


class Origin(TypedDict):
    """What the avatar was made from, and with what."""

    statement: str
    tool: str
    video: str
    video_sha256: str


class ModelShape(TypedDict, total=False):
    """Sizes that a model needs before its weights can be loaded.

    Attributes:
        resolution: side of the UV map, texels; appearance_basis: ``rank`` and ``rows`` of a basis.
        gaussians: how many each branch has.
    """

    resolution: int
    appearance_basis: dict[str, int]
    gaussians: dict[str, int]


class MovedSound(TypedDict, total=False):
    """``av_offset``: s by which a clip's sound was late and was moved back; absent in avatars of earlier versions."""

    av_offset: float


class ClipRecord(MovedSound):
    """The training clip.

    Attributes:
        frames: trained on; total: of the video; kept: of the track in the avatar.
        crop_box: left, top, right, bottom in the video, px.
        identity: the rig's identity coefficients.
    """

    frames: int
    total: int
    kept: int
    crop_box: list[float]
    identity: list[float]


class Progress(TypedDict):
    """How far the adaptation is; ``psnr_face``: ``[seconds, dB]`` of held-out frames; ``stages``: seconds by stage."""

    seconds: float
    iterations: int
    budget: str
    complete: bool
    psnr_face: list[list[float]]
    stages: dict[str, float]


class AvatarContent(TypedDict):
    """Everything but the listing of files.

    Attributes:
        recipe: its name; config: its configuration; model: shapes that its weights have.
        prior: the prior of appearance; priors: all of them, by kind.
        rig: ``name, sha256, source``; features: of the sound that drives it.
        size: side of its frames, px.
        created: ISO 8601, UTC.
        consent: who agreed, see :mod:`adapt.consent`.
        metrics: figures of the adaptation, such as ``psnr_face_held`` in dB; null_reasons: why one of them is null.
        driver: ``prior`` or ``clip``.
        device, seed: of the adaptation.
    """

    recipe: str
    prior: VisualPrior | None
    priors: dict[str, PriorRecord]
    rig: dict[str, str]
    features: FeatureRecord
    size: int
    created: str
    provenance: Origin
    consent: dict[str, str]
    metrics: dict[str, float | None]
    null_reasons: dict[str, str]
    config: dict[str, object]
    model: ModelShape
    clip: ClipRecord
    progress: Progress
    driver: str
    device: str
    seed: int


class AvatarDocument(AvatarContent):
    """``avatar.json``; ``files``: size and SHA-256 of every file of the folder, by its path within it."""

    schema: int
    files: dict[str, Entry]


class Adapted(TypedDict):
    """What :func:`adapt.job.adapt` made.

    Attributes:
        avatar: its folder; size: side of its frames, px; bytes: of the folder.
        recipe, driver: their names; prior: of its appearance; consent: what was recorded.
        iterations, seconds: of the optimisation; stages: seconds by what they were spent on.
        frames: trained on; metrics: figures of the adaptation; null_reasons: why one of them is null.
        complete: whether the budget was used up; an incomplete one can be resumed.
    """

    avatar: str
    recipe: str
    prior: VisualPrior | None
    iterations: int
    seconds: float
    stages: dict[str, float]
    metrics: dict[str, float | None]
    null_reasons: dict[str, str]
    driver: str
    consent: str
    size: int
    frames: int
    complete: bool
    bytes: int
