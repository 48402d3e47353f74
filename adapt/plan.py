"""The request for an adaptation, checked as a whole before any work begins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adapt.avatar import folder
from adapt.avatar.document import AvatarDocument
from adapt.budget import Budget, parse_budget
from adapt.clip import LEAST_FRAMES, Clip
from adapt.consent import WARNING, Consent, consent_of, refuse_withdrawn
from adapt.fit.config import RecipeConfig, RiggedConfig
from adapt.outputs import check_changeable, claim
from adapt.priors import PriorFolder, find_priors, rig_and_feature
from adapt.recipes.registry import Recipe, recipe
from configs import InputError, to_dict
from configs.devices import is_accelerator, pick_device
from configs.progress import say
from configs.words import counted
from heads.rig import Rig
from pretrain.roles import MOTION
from shards.features import Feature
from shards.media.probe import video_info
from shards.media.rates import FPS
from shards.people.consent import UNKNOWN

# Side of the frames, px, where nothing is asked for and the source has as many.
SIZE_GPU, SIZE_CPU, LEAST_SIZE = 512, 256, 64
DEFAULT_RECIPE = "headstart"
# A complete avatar can be resumed only with a budget of which less than this share is spent.
SPENT = 0.9

PICTURES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One call of :func:`adapt.job.adapt`, every part of it checked.

    Attributes:
        config: the recipe's, its ``size`` chosen.
        frames: number of training frames, from the first on.
        total: number of frames of the video.
        priors: found and compatible, not opened yet.
        rig, feature: those of the priors, or of the avatar that is resumed.
        consent: who agreed, see :mod:`adapt.consent`.
        before: the document of the avatar that is resumed; ``None`` for a new one.
        av_offset: seconds by which the sound is known to be late; 0 leaves it as it is, ``None``: tracking estimates it.
        in_step: whether the voice's stage may move the sound further, by its speech encoder.
        refine: whether tracks are refined on the pixels; a resumed avatar of an earlier version goes on without.
        exact: whether a resumed run has the same budget and priors, so that it ends as if it had never stopped.
    """

    video: Path
    video_sha256: str
    out: Path
    recipe: Recipe
    config: RecipeConfig
    budget: Budget
    device: torch.device
    seed: int
    self_contained: bool
    frames: int
    total: int
    priors: tuple[PriorFolder, ...]
    rig: Rig
    feature: Feature
    consent: Mapping[str, str]
    before: AvatarDocument | None = None
    av_offset: float | None = None
    in_step: bool = True
    refine: bool = True
    exact: bool = False

    @property
    def voice(self) -> RiggedConfig | None:
        """The configuration, if the recipe is driven by a prior of motion and there is one; else ``None``."""
        given = any(prior.role == MOTION for prior in self.priors)
        return self.config if given and isinstance(self.config, RiggedConfig) and self.config.audio_prior else None

    @property
    def voice_budget(self) -> Budget | None:
        """The voice's share of the budget; ``None`` where nothing is fine-tuned."""
        voice = self.voice
        if voice is None or not voice.audio_finetune or not voice.voice_share:
            return None
        return self.budget.share(voice.voice_share)


def make_plan(
    video: str | Path,
    out: str | Path,
    *,
    recipe_name: str | None,
    prior: str | Path | None,
    seconds: float | None,
    budget: str | float | Budget,
    resume: bool,
    changes: Sequence[str],
    self_contained: bool,
    size: int | None,
    device: str,
    seed: int,
    overwrite: bool,
    clip: Clip | None,
    consent: str | Path | None,
    dataset: str | Path | None,
    in_step: bool,
) -> Plan:
    """Check a call of :func:`adapt.job.adapt`, whose arguments these are.

    Raises:
        InputError: the first thing that is wrong; nothing is written.
    """
    before = folder.verify_folder(out) if resume and Path(str(out)).exists() else None
    begun = DEFAULT_RECIPE if before is None else before["recipe"]
    chosen, parsed, place = recipe(recipe_name or begun), parse_budget(budget), pick_device(device)
    size = clip.size if clip is not None else size
    config = chosen.config(changes=[*changes, *_sized(size)])
    _check_video(video)
    agreed, sha256 = consent_of(video, consent), folder.file_sha256(video)
    if dataset is not None:
        refuse_withdrawn(video, sha256, agreed.identity, dataset)
    frames, total = split_frames(video, seconds) if clip is None else (len(clip), len(clip))
    if before is None:
        _check_unfinished(out, overwrite)
        out = claim(out, overwrite=overwrite, mark=folder.DOCUMENT)
    else:
        check_changeable(Path(str(out)))
        prior = prior if prior is not None else _uris(before)
    priors = tuple(find_priors(prior))
    rig, feature = rig_and_feature(priors, before)
    if before is not None:
        _check_resumed(before, chosen, sha256, video, out)
        _check_budget(before, parsed, out)
        config, frames, seed = (
            _resumed_config(before, chosen, [*changes, *_sized(size)], video, out),
            before["clip"]["frames"],
            before["seed"],
        )
    if not config.size:
        config = chosen.config(to_dict(config), [f"size={auto_size(video, place)}"])
    if before is None and clip is None:
        config = _within_source(chosen, config, video)
    return Plan(
        video=Path(str(video)),
        video_sha256=sha256,
        out=Path(str(out)),
        recipe=chosen,
        config=config,
        budget=parsed,
        device=place,
        seed=seed,
        self_contained=self_contained,
        frames=frames,
        total=total,
        priors=priors,
        rig=rig,
        feature=feature,
        consent=_recorded(agreed, before if consent is None else None),
        before=before,
        av_offset=_known_offset(before, in_step),
        in_step=in_step if before is None else "tracked_offset" in before["clip"],
        refine=before is None or before["clip"].get("refined", False),
        exact=before is not None and _same(before, parsed, priors),
    )


def split_frames(video: str | Path, seconds: float | None = None) -> tuple[int, int]:
    """(training frames, all frames) of a video at 25 fps: its first 10/11, or its first ``seconds``.

    Raises:
        InputError: unreadable, shorter than a second, or ``seconds`` not positive.
    """
    total = video_info(video).frames
    if total < LEAST_FRAMES:
        few = counted(total, "frame is", "frames are")
        raise InputError(f"{video}: {few} too few; give a clip of at least {LEAST_FRAMES} frames (one second)")
    if seconds is None:
        return max(1, total * 10 // 11), total
    if not 0 < seconds < math.inf:
        raise InputError(f"--seconds {seconds:g}: expected a positive number of seconds to train on")
    return min(total, max(1, round(seconds * FPS))), total


def _known_offset(before: AvatarDocument | None, in_step: bool) -> float | None:
    """The offset that tracking removes: ``None`` if it is to be estimated, 0 if the sound is to stay.

    A resumed avatar's is known. What the speech encoder found beyond it is found again, perhaps from more of the clip.
    """
    if before is not None:
        clip = before["clip"]
        return float(clip.get("tracked_offset", clip.get("av_offset", 0.0)))  # earlier versions: all of it, or none
    return None if in_step else 0.0


def auto_size(video: str | Path, device: torch.device) -> int:
    """Side of the frames, px, a multiple of 16: 512 on a GPU, 256 on a CPU, or the source's where that is smaller."""
    wanted = SIZE_GPU if is_accelerator(device) else SIZE_CPU
    return min(wanted, _largest_size(video))


def _largest_size(video: str | Path) -> int:
    """Side of the largest frames of a video that are not enlarged, a multiple of 16 px."""
    info = video_info(video)
    return max(LEAST_SIZE, min(info.width, info.height) // 16 * 16)


def _sized(size: int | None) -> list[str]:
    return [f"size={size}"] if size else []


def _within_source(recipe: Recipe, config: RecipeConfig, video: str | Path) -> RecipeConfig:
    """The configuration with the size that frames of this video can have: nothing is enlarged."""
    largest = _largest_size(video)
    return config if config.size <= largest else recipe.config(to_dict(config), [f"size={largest}"])


def _check_video(video: str | Path) -> None:
    path = Path(str(video))
    if path.is_dir() and (pictures := sorted(one.name for one in path.iterdir() if one.suffix.lower() in PICTURES)):
        raise InputError(
            f"{video}: is a folder of pictures ({pictures[0]}, ...), expected a video file; make one, such as with "
            f"ffmpeg -framerate 25 -pattern_type glob -i '{video}/*{Path(pictures[0]).suffix}' -crf 12 -pix_fmt yuv420p clip.mp4"
        )
    if not path.is_file():
        why = "is a folder, expected a video file" if path.is_dir() else "no such file"
        raise InputError(f"{video}: {why}; give the path of a video")


def _check_unfinished(out: str | Path, overwrite: bool) -> None:
    """Refuse an output at which an interrupted run left its avatar, with what continues it."""
    if not overwrite and (Path(str(out)) / folder.STATE).is_file():
        raise InputError(f"avatar '{out}' is unfinished; add --resume to continue it, or --overwrite to replace it")


def _recorded(agreed: Consent, before: AvatarDocument | None) -> dict[str, str]:
    """The record that the avatar was started with, if it has one, else ``agreed``; warns if consent is unknown."""
    begun = None if before is None else before.get("consent")
    record = dict(begun or agreed.as_dict())
    if record["consent"] == UNKNOWN:
        say(WARNING)
    return record


def _uris(before: AvatarDocument) -> str:
    """The priors that the avatar was started with, the default of a resumed run."""
    return ",".join(dict.fromkeys(record["uri"] for record in (before.get("priors") or {}).values())) or "none"


def _check_resumed(before: AvatarDocument, chosen: Recipe, sha256: str, video: str | Path, out: str | Path) -> None:
    if before["recipe"] != chosen.name:
        raise InputError(
            f"avatar '{out}' was started with recipe {before['recipe']}, not {chosen.name}; resume with the same recipe"
        )
    if before["provenance"]["video_sha256"] != sha256:
        raise InputError(f"avatar '{out}' was started with another video, not {video}; resume with the same video")


def _check_budget(before: AvatarDocument, budget: Budget, out: str | Path) -> None:
    progress = before["progress"]
    spent = progress["iterations"] if budget.iterations is not None else progress["seconds"]
    whole = budget.iterations if budget.iterations is not None else budget.seconds
    if progress["complete"] and spent >= SPENT * (whole or 0):
        raise InputError(f"avatar '{out}' is complete after {progress['seconds']:.0f}s; resume with a larger --budget")


def _resumed_config(
    before: AvatarDocument, chosen: Recipe, changes: Sequence[str], video: str | Path, out: str | Path
) -> RecipeConfig:
    begun = chosen.config(before["config"])
    wanted = _within_source(chosen, chosen.config(before["config"], changes), video)
    # Earlier versions recorded a size above the source's as it was asked for.
    recorded = vars(_within_source(chosen, begun, video))
    for key, value in vars(wanted).items():
        if value != recorded[key]:
            raise InputError(
                f"avatar '{out}' was started with {key}={recorded[key]}, not {value}; resume without that change"
            )
    return begun


def _same(before: AvatarDocument, budget: Budget, priors: Sequence[PriorFolder]) -> bool:
    known = {kind: record["sha256"] for kind, record in (before.get("priors") or {}).items()}
    given = {prior.kind: prior.info["weights_sha256"] for prior in priors}
    return before["progress"]["budget"] == str(budget) and known == given
