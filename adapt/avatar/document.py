"""What ``avatar.json`` says, key by key."""

from __future__ import annotations

from typing import TypedDict

from cluster.storage.trees import Entry
from configs.records import FeatureRecord


class PriorRecord(TypedDict):
    """An avatar's record of a prior.

    Attributes:
        name: its kind, such as ``audio-expression``.
        role: see :mod:`pretrain.roles`; absent in avatars of version 0.1.
        version: the registry's version or alias that it was found by, else the prior's own version or the start of its hash.
        sha256: of its weights.
        uri: where it was found.
        features: the audio feature that it uses.
        live: the one that it uses in live use; absent in avatars of earlier versions.
    """

    name: str
    role: str
    version: str
    sha256: str
    uri: str
    features: FeatureRecord | None
    live: FeatureRecord | None


class VisualPrior(TypedDict):
    """The prior that ``avatar.json`` names first: that of appearance, else any other."""

    name: str
    version: str
    sha256: str


class Origin(TypedDict):
    """The tool that made the avatar, and the video that it was made from."""

    statement: str
    tool: str
    video: str
    video_sha256: str


class ModelShape(TypedDict, total=False):
    """Sizes that a model needs before its weights can be loaded.

    Attributes:
        resolution: side of the UV map, texels.
        neck: heights between which the neck fades out (:data:`heads.gaussians.neck.FADE`); texels further down have no Gaussian.
        short_neck: in avatars of earlier versions, instead of ``neck``: whether those texels have no Gaussian.
        appearance_basis: ``rank`` and ``rows`` of the basis.
        gaussians: number in each branch.
    """

    resolution: int
    neck: list[float] | None
    short_neck: bool
    appearance_basis: dict[str, int]
    gaussians: dict[str, int]


class LaterClipRecord(TypedDict, total=False):
    """What avatars of earlier versions do not say of their clip.

    Attributes:
        av_offset: seconds by which the sound was late and was moved back.
        tracked_offset: the part of ``av_offset`` that tracking found; absent if the sound is not to be moved further.
        level: of the speech, dB of full scale (:mod:`adapt.talk.level`); absent without sound.
        refined: whether the tracks were refined on the pixels (:mod:`shards.tracking.refinement.photometric`).
    """

    av_offset: float
    tracked_offset: float
    level: float
    refined: bool


class ClipRecord(LaterClipRecord):
    """The training clip.

    Attributes:
        frames: length of the part of the video that was there to be trained on; tests begin behind it.
        total: how many the video has.
        kept: how many the avatar keeps the track of.
        crop_box: left, top, right, bottom in the video, px.
        identity: the rig's identity coefficients.
    """

    frames: int
    total: int
    kept: int
    crop_box: list[float]
    identity: list[float]


class Progress(TypedDict):
    """How far the adaptation has come; ``psnr_face``: ``[seconds, dB]`` of held-out frames; ``stages``: seconds by stage."""

    seconds: float
    iterations: int
    budget: str
    complete: bool
    psnr_face: list[list[float]]
    stages: dict[str, float]


class AvatarContent(TypedDict):
    """Everything but the listing of files.

    Attributes:
        recipe: its name.
        config: the recipe's configuration.
        model: sizes that determine the shapes of the weights.
        prior: see :class:`VisualPrior`.
        priors: records of all priors, by kind.
        rig: ``name, sha256, source``.
        features: the audio feature that drives it.
        size: side of its frames, px.
        created: ISO 8601, UTC.
        consent: who agreed, see :mod:`adapt.consent`.
        metrics: figures of the adaptation, such as ``psnr_face_held`` in dB.
        null_reasons: why a metric is null.
        driver: ``prior`` (the audio-expression prior) or ``clip`` (regression or loudness).
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
        avatar: its folder.
        recipe, driver: their names.
        prior: see :class:`VisualPrior`.
        iterations: optimisation steps, those of earlier runs included.
        seconds: wall-clock time of the whole adaptation, those of earlier runs included, without compiling kernels.
        stages: seconds of this run by stage; ``steps`` are those of the optimisation, ``compiling`` is not in ``seconds``.
        metrics: figures of the adaptation.
        null_reasons: why a metric is null.
        consent: what was recorded.
        size: side of its frames, px.
        frames: how many were trained on; fewer than were asked for where the face leaves, or the budget ended before.
        bytes: of the folder's listed files.
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
