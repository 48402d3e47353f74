"""Talking: how well lips fit the audio, by recipe, for the person's own voice, another person's and other languages.

    python -m benchmarks voices --clips ../shared/clips --speech ../shared/speech --people cnn2_a may --prior URI,URI

Every avatar is adapted on the first 10/11 of its clip (or opened, if ``--keep`` holds it already) and speaks, as with
``talk``:

* ``own voice``: the audio of the clip's last 1/11, and ``own voice, another take``: that of ``PERSON_b``, if there is
  such a clip of the same person, because a second or two say little;
* ``another's voice``: the audio of the next person in the list;
* ``language XX``: the speech files ``XX_*.wav``, in languages that the person does not speak in the clip;
* ``filmed language XX``: the same for clips of other people (``FILMED``), whose lips the avatar's are compared with;
* ``silence``: two seconds without sound, in which a mouth should rest.

Faces are tracked in the rendered frames. With real frames of the speaker: correlation of the mouth opening (at the same
frame, not at the best lag). Without them: Sync-C and Sync-D of the sync expert, mean and spread of the mouth opening and the
motion of the lips. ``real video`` rows give the same for the real speaker. ``test frames, driven by sound`` are the scores
of ``headstart evaluate`` on the clip's last 1/11. Stored rows are not measured again.
"""

from __future__ import annotations

import argparse
import functools
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adapt.recipes import recipe_names
from benchmarks.adaptation.recipes import CLIPS, means
from benchmarks.results import row, stored, write
from heads.measures.face import eye_distance, lip_gap
from heads.rig.facemesh import LIPS
from shards.media.encode import as_uint8
from shards.media.rates import FPS, SAMPLE_RATE
from shards.media.sound import read_audio

PEOPLE = ("cnn2_a", "may", "french_a", "ed_pose2_a", "hl_video4")
# The clips of these people are in English where nothing else is said.
SPOKEN = {"french_a": "fr"}
# Clips in other languages; their people must be held out from the priors, so that no prior has heard the language.
FILMED = {"ar": "tv_19", "hi": "tv_21", "ko": "tv_22", "pl": "tv_23", "zh": "tv_26", "fr": "french_a"}
# Clips whose sound is not known to fit their lips: nobody's lips are held against them.
UNTRUSTED = ("may",)
SIZE = 256
BLOCK = 8
SILENCE = 2.0  # s
# Of `headstart evaluate`: key, label, unit, and whether the sound must be known to fit the lips.
SCORES = (
    ("lmd", "LMD", "px at 512", False),
    ("lmd", "LMD, sound known to fit", "px at 512", True),
    ("opening_r", "correlation of the mouth's opening", "", True),
    ("closure_f1", "closure F1", "", True),
)


@dataclass
class Voice:
    """Sound ``[N]`` at 16 kHz to speak; its speaker's real mouth opening ``[T]`` and lips, where there are frames."""

    name: str
    sound: np.ndarray
    opening: np.ndarray | None = None
    lips: Any = None
    landmarks: np.ndarray | None = None


def main() -> None:
    """Measure what is not stored yet and write ``results/voices.json`` after every avatar."""
    options = _parse()
    expert = _expert(options)
    rows = [r for r in stored(options.name) if not r["case"].startswith("mean of ")]
    for person in options.people:
        wanted = [f"{person}, {who}" for who in ("real video", *options.recipes)]
        if all(any(r["case"].startswith(f"{case}, ") for r in rows) for case in wanted):
            continue
        spoken = list(voices(person, options, expert))
        made = [r for case in wanted for r in rows if r["case"].startswith(f"{case}, ")]
        rows = [r for r in rows if r not in made] + _real(person, spoken, expert)
        for recipe in options.recipes:
            kept = [r for r in made if r["case"].startswith(f"{person}, {recipe}, ")]
            rows += kept or _avatar(person, recipe, spoken, expert, options)
            _write(rows, options, echo=False)
    _write(rows, options, echo=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, default=CLIPS, help="folder of NAME.mp4")
    parser.add_argument("--speech", type=Path, default=CLIPS.parent / "speech", help="folder of LANGUAGE_NAME.wav")
    parser.add_argument("--people", nargs="+", default=list(PEOPLE))
    parser.add_argument("--recipes", nargs="+", default=["headstart", "talkinggaussian"], choices=recipe_names())
    parser.add_argument("--budget", default="60s", help="of every adaptation: wall clock (60s) or steps (900it)")
    parser.add_argument("--prior", default="none", help="what the avatars stand on, a sync expert included")
    parser.add_argument("--expert", metavar="URI", help="sync expert that judges, if not the one among --prior")
    parser.add_argument("--seconds", type=float, default=9.0, help="of each voice at most")
    parser.add_argument("--keep", type=Path, help="keep avatars (PERSON-RECIPE) here, and use those that are there")
    parser.add_argument("--name", default="voices", help="of the result file")
    return parser.parse_args()


def _expert(options: argparse.Namespace) -> Any:
    """The sync expert among the priors: it judges every recipe, those that never saw it too.

    Raises:
        InputError: there is none.
    """
    from configs import InputError
    from pretrain import load_prior
    from pretrain.prior import role_of
    from pretrain.roles import SYNC

    for uri in [options.expert] if options.expert else options.prior.split(","):
        prior = load_prior(uri) if uri != "none" else None
        if prior is not None and role_of(prior.info["prior"]) == SYNC:
            return prior
    raise InputError("--prior or --expert: name a sync-expert; Sync-C and Sync-D are what this measures")


# --- what is spoken -------------------------------------------------------------------------------------------------


def voices(person: str, options: argparse.Namespace, expert: Any) -> Iterator[Voice]:
    """Everything that this person's avatars speak."""
    from adapt.plan import split_frames

    frames = round(options.seconds * FPS)
    video = options.clips / f"{person}.mp4"
    first, total = split_frames(video)
    yield spoken_in("own voice", video, first, total - first, expert)
    other = options.clips / f"{person.removesuffix('_a')}_b.mp4"
    if other.is_file():
        yield spoken_in("own voice, another take", other, 0, frames, expert)
    speaker = neighbour(person, options.people)
    yield spoken_in("another's voice", options.clips / f"{speaker}.mp4", 0, frames, expert)
    yield from languages(person, options)
    for language, other in FILMED.items():
        filmed = options.clips / f"{other}.mp4"
        if filmed.is_file() and language != SPOKEN.get(person, "en"):
            yield spoken_in(f"filmed language {language}", filmed, 0, frames, expert)
    yield Voice("silence", np.zeros(round(SILENCE * SAMPLE_RATE), np.float32))


def neighbour(person: str, people: list[str]) -> str:
    """The next person of the list whose clip's sound is known to fit their lips."""
    trusted = [name for name in people if name not in UNTRUSTED or name == person]
    return trusted[(trusted.index(person) + 1) % len(trusted)]


def languages(person: str, options: argparse.Namespace) -> Iterator[Voice]:
    """Speech files of the languages that the person does not speak in the clip."""
    for path in sorted(options.speech.glob("??_*.wav")):
        language = path.name[:2]
        if language != SPOKEN.get(person, "en"):
            yield Voice(f"language {language}", read_audio(path)[: round(options.seconds * FPS) * SAMPLE_RATE // FPS])


@functools.cache
def spoken_in(name: str, video: Path, first: int, count: int, expert: Any) -> Voice:
    """The sound of a stretch of a real clip, in step as ``adapt`` puts it, and how the speaker's lips moved."""
    from adapt.clip import track_clip
    from adapt.in_step import put_in_step
    from shards.features import open_feature

    with track_clip(video, start=first, frames=count, size=SIZE, feature=open_feature(expert.info["features"])) as clip:
        put_in_step(clip)
        landmarks = clip.track["landmarks"].copy()
        blocks = [np.arange(i, min(i + BLOCK, len(clip))) for i in range(0, len(clip), BLOCK)]
        lips = [expert.frame_features(clip.frames(rows), landmarks[rows]) for rows in blocks]
        sound = clip.audio[: len(clip) * SAMPLE_RATE // FPS].copy()
    opening = None if video.stem in UNTRUSTED else lip_gap(landmarks)
    return Voice(name, sound, opening, _joined(lips), landmarks)


def _joined(parts: list[Any]) -> Any:
    import torch

    return torch.cat(parts)


# --- who speaks it --------------------------------------------------------------------------------------------------


def _real(person: str, spoken: list[Voice], expert: Any) -> list[dict[str, Any]]:
    """The real speakers' own figures, for scale."""
    rows = []
    for voice in spoken:
        if voice.opening is not None:
            rows += figures(f"{person}, real video, {voice.name}", voice, voice.landmarks, voice.lips, expert)[:-1]
    return rows


def _avatar(
    person: str, recipe: str, spoken: list[Voice], expert: Any, options: argparse.Namespace
) -> list[dict[str, Any]]:
    from adapt.avatar.avatar import load_avatar
    from benchmarks.adapting import adapt

    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="headstart-voices-") as temporary:
        folder = (options.keep or Path(temporary)) / f"{person}-{recipe}"
        if not (folder / "avatar.json").is_file():
            video = options.clips / f"{person}.mp4"
            adapt(video, folder, recipe=recipe, prior=options.prior, budget=options.budget, size=SIZE)
        avatar = load_avatar(folder)
        for voice in spoken:
            landmarks, lips = heard(avatar, voice.sound, expert)
            rows += figures(f"{person}, {recipe}, {voice.name}", voice, landmarks, lips, expert)
            _say(rows)
        rows += evaluated(avatar, options.clips / f"{person}.mp4", f"{person}, {recipe}, test frames, driven by sound")
        _say(rows)
    return rows


def evaluated(avatar: Any, video: Path, case: str) -> list[dict[str, Any]]:
    """The scores of ``headstart evaluate`` on frames that the avatar has not seen, with their poses and their sound."""
    from adapt.evaluate.avatars import score_clip, test_range, track_test
    from adapt.evaluate.tools import open_tools

    with track_test(avatar, video, *test_range(avatar, video, None)) as clip:
        scores = score_clip(avatar, clip, open_tools(), pictures=1)[0]["audio"]
    trusted = video.stem not in UNTRUSTED
    known = [(label, scores.get(key), unit) for key, label, unit, fits in SCORES if trusted or not fits]
    return [row(case, label, float(value), unit) for label, value, unit in known if value is not None]


def _say(rows: list[dict[str, Any]]) -> None:
    case = rows[-1]["case"]
    found = {r["variant"]: round(r["value"], 3) for r in rows if r["case"] == case}
    print(case, found, file=sys.stderr, flush=True)


def heard(avatar: Any, sound: np.ndarray, expert: Any) -> tuple[np.ndarray, Any]:
    """Landmarks ``[T, 478, 3]`` px found in the avatar's frames for a sound, and the expert's features of the lips."""
    from adapt.talk.talker import Talker
    from shards.tracking import detect_landmarks

    talker = Talker(avatar)
    found, lips, held = [], [], []

    def look() -> None:
        pictures = as_uint8(np.stack(held))
        points, valid = detect_landmarks(pictures)
        if not valid.all():
            raise RuntimeError(f"no face was found in {int((~valid).sum())} rendered frames")
        found.append(points.astype(np.float32))
        lips.append(expert.frame_features(pictures, points))
        held.clear()

    for stream in (talker.feed(sound), talker.finish()):
        for frame in stream:
            held.append(frame)
            if len(held) == BLOCK:
                look()
    if held:
        look()
    return np.concatenate(found), _joined(lips)


def figures(case: str, voice: Voice, landmarks: np.ndarray, lips: Any, expert: Any) -> list[dict[str, Any]]:
    """Rows about one spoken voice; the last one compares with the real speaker, where there is one."""
    from pretrain.baselines.baselines import correlation
    from shards.features import open_feature

    count = min(len(landmarks), len(voice.sound) * FPS // SAMPLE_RATE)
    opening = lip_gap(landmarks[:count])
    rows = [
        row(case, "frames", count, "frames"),
        row(case, "mean of the mouth's opening", float(100 * opening.mean()), "% of the eye distance"),
        row(case, "spread of the mouth's opening", float(100 * opening.std()), "% of the eye distance"),
        row(case, "speed of the lips", lip_speed(landmarks[:count]), "% of the eye distance a frame"),
    ]
    if count >= FPS and voice.sound.any():
        sync_c, sync_d, offset = expert.confidence_of(
            lips[:count], open_feature(expert.info["features"]).extract(voice.sound)[:count]
        )
        rows += [
            row(case, "Sync-C (ours)", sync_c, ""),
            row(case, "Sync-D (ours)", sync_d, ""),
            row(case, "offset of the sound", offset, "frames"),
        ]
    if voice.opening is not None:
        r = correlation(opening, voice.opening[:count])
        rows.append(row(case, "correlation of the mouth's opening", r, "", "the real speaker's, same frames"))
    return rows


def lip_speed(landmarks: np.ndarray) -> float:
    """Mean path of a lip landmark from frame to frame without the lips' common motion, percent of the eye distance."""
    lips = landmarks[:, list(LIPS), :2]
    lips = lips - lips.mean(1, keepdims=True)
    path = np.linalg.norm(np.diff(lips, axis=0), axis=-1).mean(1)
    return float((100 * path / eye_distance(landmarks)[1:]).mean())


# --- results --------------------------------------------------------------------------------------------------------


def over_languages(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each person's mean over the languages, as rows of ``PERSON, WHO, other languages``, with real frames ``..., filmed``."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for r in rows:
        spoken = re.fullmatch("(.*), (filmed )?language ..", r["case"])
        if spoken and r["variant"] != "offset of the sound":
            case = f"{spoken[1]}, other languages" + (", filmed" if spoken[2] else "")
            groups.setdefault((case, r["variant"], r["unit"]), []).append(r["value"])
    return [row(case, variant, float(np.mean(v)), unit) for (case, variant, unit), v in groups.items()]


def _write(rows: list[dict[str, Any]], options: argparse.Namespace, echo: bool) -> None:
    rows = [r for r in rows if ", other languages" not in r["case"]]
    rows = rows + over_languages(rows)
    notes = (
        f"avatars of {options.budget} at {SIZE}x{SIZE} on prior {options.prior}; faces found again in rendered frames; "
        "Sync-C (higher is better) and Sync-D (lower) in the sync expert's own distances"
    )
    words = [word for i, word in enumerate(sys.argv[1:]) if not {"--keep", "--name"} & {word, sys.argv[i]}]
    averaged = [r for r in rows if r["variant"] not in ("frames", "offset of the sound")]
    write(options.name, rows + means(averaged), notes, command=shlex.join(["voices", *words]), echo=echo)


if __name__ == "__main__":
    main()
