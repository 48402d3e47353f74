"""The people of the demo: those of the corpus, and those held out of it for adaptation; generated or real."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from configs import InputError
from shards.build.find import find_clips
from shards.build.task import SourceClip
from shards.media.probe import video_info
from shards.people.consent import ConsentRecord
from shards.synthetic.generate import CONSENT, LICENCE, make_talker, synthetic_video

# Every fifth person is held out, unless names are given.
KEEP_OUT_EVERY = 5
MIN_SECONDS = 4.0  # of a held-out person's clip with sound
_OUTSIDE = 900  # generated people from this number on are never in a demo's corpus


@dataclass(frozen=True)
class HeldOutPerson:
    """A person outside the corpus: a video to adapt to, a speech that adaptation does not use, and its real video."""

    identity: str
    video: Path
    speech: Path
    truth: Path | None = None  # the same person really saying `speech`, where that was recorded
    licence: str = "unknown"
    consent: str = "unknown"
    words: str = ""


@dataclass(frozen=True)
class Cast:
    """Corpus videos (none for generated people, who are written to shards directly) and the held-out people.

    Attributes:
        held_out: the people that are adapted.
        left_out: names of all people outside the corpus.
    """

    videos: list[Path]
    consent: Path | None
    held_out: list[HeldOutPerson]
    left_out: list[str] = field(default_factory=list)


# ---------------------------------------------------------------------------------------------------- invented people


def invented_people(count: int, seed: int, folder: Path, seconds: float, size: int) -> list[HeldOutPerson]:
    """Generated people outside this seed's corpus with two videos each: one to adapt to, and one with another speech.

    Videos that exist from an earlier run are kept.

    Args:
        seconds: length of each video.
        size: side of the frames, px.
    """

    held_out = []
    for number in range(seed * 1000 + _OUTSIDE, seed * 1000 + _OUTSIDE + count):
        person = make_talker(number)
        films = [folder / f"person-{number:04d}.mp4", folder / f"person-{number:04d}-unheard.mp4"]
        for clip, film in enumerate(films):
            if not film.is_file():
                synthetic_video(number, seconds, film, size=size, clip=clip)
        words = " ".join(person.perform(seconds, 1, size).words)
        held_out.append(HeldOutPerson(person.identity.name, films[0], films[1], films[1], LICENCE, CONSENT, words))
    return held_out


# -------------------------------------------------------------------------------------------------------- real people


def real_cast(
    folder: str | Path,
    consent: str | Path | None,
    hold_out: Sequence[str] | None,
    people: int,
    speech: str | Path | None,
) -> Cast:
    """Split a folder of clips by person into a corpus and held-out people.

    Args:
        consent: CSV as for ``shards build``; by default ``consent.csv`` of the folder, if there is one.
        hold_out: identities to keep out of the corpus; by default every fifth.
        people: how many of those are adapted: the ones with the longest clips that have sound.
        speech: what they say; by default the audio of another clip of the same person, else of the next person.

    Raises:
        InputError: no clips, fewer than two people left for the corpus, an unknown identity, or no clip with sound to adapt to.
    """

    folder = Path(folder)
    if consent is None and (folder / "consent.csv").is_file():
        consent = folder / "consent.csv"
    clips = find_clips([folder], consent)
    by_person: dict[str, list[SourceClip]] = {}
    for clip in clips:
        by_person.setdefault(clip.consent.identity, []).append(clip)
    outside = _outside(sorted(by_person), hold_out)
    held_out = _held_out({name: by_person[name] for name in outside}, people, speech)
    videos = [Path(clip.path) for name, theirs in by_person.items() if name not in outside for clip in theirs]
    if len(by_person) - len(outside) < 2:
        raise InputError(
            f"--videos {folder}: {len(by_person)} people, {len(outside)} kept out; a corpus needs two or more"
        )
    return Cast(videos, Path(consent) if consent else None, held_out, outside)


def _outside(people: list[str], hold_out: Sequence[str] | None) -> list[str]:
    if hold_out is None:
        return people[KEEP_OUT_EVERY - 1 :: KEEP_OUT_EVERY] or people[-1:]
    unknown = [name for name in hold_out if name not in people]
    if unknown:
        raise InputError(f"--hold-out {unknown[0]}: no such person; the clips show {', '.join(people)}")
    return list(hold_out)


def _held_out(clips: dict[str, list[SourceClip]], people: int, speech: str | Path | None) -> list[HeldOutPerson]:
    """The held-out people with the longest clips that have sound, each with a speech that is not in that clip."""

    sounding: dict[str, list[tuple[float, Path, ConsentRecord]]] = {}
    for name, theirs in clips.items():
        for clip in theirs:
            info = video_info(clip.path)
            if info.has_audio and info.seconds >= MIN_SECONDS:
                sounding.setdefault(name, []).append((info.seconds, Path(clip.path), clip.consent))
    if not sounding:
        raise InputError(
            f"none of the people kept out ({', '.join(clips)}) has a clip of {MIN_SECONDS:g} s with sound; name others"
        )
    ranked = sorted(sounding, key=lambda name: (-max(s for s, _, _ in sounding[name]), name))
    chosen, held_out = ranked[:people], []
    for i, name in enumerate(chosen):
        (_, video, record), *more = sorted(sounding[name], key=lambda item: (-item[0], str(item[1])))
        other = ranked[(i + 1) % len(ranked)]
        borrowed = speech or (more[0][1] if more else sorted(sounding[other])[-1][1])
        truth = more[0][1] if more and speech is None else None
        held_out.append(
            HeldOutPerson(name, video, Path(borrowed), truth, licence=record.licence, consent=record.consent)
        )
    return held_out
