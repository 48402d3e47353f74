"""``headstart shards build | synthesize | info | verify | relabel | forget | basis``."""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

from configs.words import counted
from headstart.cli import output
from headstart.cli.parser import Subparsers, actions, call, command, number


def add(commands: Subparsers) -> None:
    """Their parsers."""
    shards = actions(commands, "shards", "build, check and edit datasets of tracked videos")
    _add_build(shards)
    _add_synthesize(shards)
    text = "show the size and contents of a dataset"
    info = command(shards, "info", text, run_info, show_totals, "headstart shards info corpus")
    info.add_argument("dataset", metavar="DATASET")
    text = "check every checksum, schema and length, and that audio, frames and track match"
    verify = command(shards, "verify", text, run_verify, show_verify, "headstart shards verify corpus")
    verify.add_argument("dataset", metavar="DATASET")
    verify.add_argument("--repair", action="store_true", help="drop broken samples and rebuild the indexes")
    text = "correct who is in clips, and their licence and consent, without tracking"
    example = "headstart shards relabel corpus --consent consent.csv"
    relabel = command(shards, "relabel", text, run_relabel, show_relabel, example)
    relabel.add_argument("dataset", metavar="DATASET")
    text = "columns: clip,identity,licence,consent,source; clip: 001, ann/001, ann/* or 001.mp4"
    relabel.add_argument("--consent", required=True, metavar="FILE.csv", help=text)
    text = "remove a person: rewrites the shards that contain them"
    forget = command(shards, "forget", text, run_forget, show_forget, "headstart shards forget corpus --identity ada")
    forget.add_argument("dataset", metavar="DATASET")
    forget.add_argument("--identity", required=True, metavar="ID")
    text = "learn the rig's identity and expression bases from a dataset or clips"
    basis = command(shards, "basis", text, run_basis, show_facts, "headstart shards basis corpus --out rig.npz")
    basis.add_argument("source", metavar="DATASET_OR_DIR")
    basis.add_argument("--out", required=True, metavar="FILE.npz")


def _add_build(shards: Subparsers) -> None:
    text = "track videos and write them to a sharded dataset; run again to continue"
    example = "headstart shards build videos/ --out corpus --consent consent.csv --workers 8"
    build = command(shards, "build", text, run_build, show_build, example)
    build.add_argument(
        "videos", nargs="*", metavar="VIDEO_OR_DIR", help="files or folders; without any, only change DATASET"
    )
    build.add_argument("--out", required=True, metavar="DATASET", help="folder or s3:// URL")
    text = "WebDataset tars of other tools (video, sound, JSON a sample): data-{000..010}.tar, s3://..., https://..."
    build.add_argument("--from-tars", nargs="+", default=[], metavar="URL", help=text)
    text = "where the JSON of a tar's sample says who is in it: identity=person.id licence=license"
    build.add_argument("--json-keys", nargs="+", default=[], metavar="FIELD=KEY", help=text)
    build.add_argument("--consent", metavar="FILE.csv", help="columns: clip,identity,licence,consent,source")
    build.add_argument("--rig", metavar="NAME_OR_PATH", help="rig to track with (default: the dataset's, or mediapipe)")
    build.add_argument("--workers", type=int, default=1, help="tracking processes (default: 1)")
    build.add_argument("--address", help="Ray cluster to join: 'auto' or host:port (default: local processes)")
    build.add_argument(
        "--features",
        default="logmel",
        help="comma-separated: logmel,whisper,whisper-live,wav2vec2,hubert,wavlm or NAME=FOLDER",
    )
    text = "give shards of earlier versions the small members that priors read, and the order of pictures; without tracking: "
    text += "the torso's track is not added"
    build.add_argument("--extras", action="store_true", help=text)
    text = "leave sound that is out of step with the lips as it is (default: it is put in step where that is sure)"
    build.add_argument("--keep-offset", action="store_true", help=text)
    text = "move the stored sound of DATASET's clips into step, by features of Whisper tiny.en, without tracking"
    build.add_argument("--put-in-step", action="store_true", help=text)
    build.add_argument("--size", type=int, help="side of the crop in px (default: the dataset's, or 512)")


def _add_synthesize(shards: Subparsers) -> None:
    text = "generate synthetic talking people with exact ground truth"
    example = "headstart shards synthesize --identities 8 --seconds 6 --out talkers"
    synthesize = command(shards, "synthesize", text, run_synthesize, show_totals, example)
    synthesize.add_argument("--identities", type=int, required=True)
    synthesize.add_argument("--seconds", type=number, required=True)
    synthesize.add_argument("--seed", type=int, default=0)
    synthesize.add_argument("--size", type=int, default=256)
    synthesize.add_argument("--workers", type=int, default=1)
    synthesize.add_argument("--out", required=True, metavar="DATASET")


def run_build(a: argparse.Namespace) -> dict[str, object]:
    """``shards build``."""
    features = a.features.split(",")
    options = {"consent": a.consent, "workers": a.workers, "address": a.address, "size": a.size, "rig": a.rig}
    options |= {"extras": a.extras, "tars": a.from_tars, "json_keys": a.json_keys, "in_step": not a.keep_offset}
    options["put_in_step"] = a.put_in_step
    return call("shards.build.build:build", a.videos, a.out, features=features, **options)


def run_synthesize(a: argparse.Namespace) -> dict[str, object]:
    """``shards synthesize``."""
    return call("shards.synthetic:synthesize", a.identities, a.seconds, a.seed, a.out, size=a.size, workers=a.workers)


def run_info(a: argparse.Namespace) -> dict[str, object]:
    """``shards info``."""
    return call("shards.check.info:info", a.dataset)


def run_verify(a: argparse.Namespace) -> dict[str, object]:
    """``shards verify``."""
    return call("shards.check.verify:verify", a.dataset, repair=a.repair)


def run_relabel(a: argparse.Namespace) -> dict[str, object]:
    """``shards relabel``."""
    return call("shards.people.relabel:relabel", a.dataset, a.consent)


def run_forget(a: argparse.Namespace) -> dict[str, object]:
    """``shards forget``."""
    return call("shards.people.forget:forget", a.dataset, a.identity)


def run_basis(a: argparse.Namespace) -> dict[str, object]:
    """``shards basis``."""
    return call("shards.basis.basis:learn_basis", a.source, a.out)


def totals(result: dict[str, Any]) -> dict[str, Any]:
    """The contents of a dataset, with units."""
    hours = result.get("hours")
    return {
        "people": result.get("identities"),
        "clips": result.get("clips"),
        "segments": result.get("segments"),
        "frames": result.get("frames"),
        "length": output.seconds(3600 * hours) if hours is not None else None,
        "size": output.size(result.get("bytes")),
        "schema": result.get("schema"),
    }


def show_totals(out: Console, result: dict[str, object], a: argparse.Namespace) -> None:
    """Counts."""
    place = getattr(a, "dataset", None) or a.out
    output.line(out, f"dataset {place}")
    known = {"identities", "hours", "bytes", "seconds", *totals(result)}
    rest = {name: value for name, value in result.items() if name not in known}
    output.facts(out, {**totals(result), **rest})
    output.next_step(out, output.command("pretrain", "audio-expression", "--data", place))


def show_build(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """Counts, and what was refused and why."""
    built = counted(result["built_clips"], "clip")
    output.line(out, f"dataset {a.out}: {built} built in this run, in {output.seconds(result['seconds'])}")
    tracked = result["tracked_fraction"]
    changes = {
        "tracked": None if tracked is None else f"{100 * tracked:.1f} % of the frames",
        "shards changed": result["extended_shards"] or None,
    }
    output.facts(out, {**totals(result), **changes})
    rows = [(item["clip"], _part(item.get("start"), item.get("end")), item["reason"]) for item in result["refused"]]
    output.table(out, ("refused", "part", "reason"), rows, title="\nrefused clips and parts of clips")
    output.line(out, f"report: {result['report']}")
    output.next_step(out, output.command("shards", "verify", a.out))


def _part(start: float | None, end: float | None) -> str:
    start, end = start or 0.0, end or 0.0
    return f"{start:.2f} to {end:.2f} s" if end > start else "all"


def show_verify(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """Intact or broken."""
    if result["ok"]:
        output.line(out, f"{counted(result['samples'], 'sample')} checked", f"dataset {a.dataset} is intact:", "green")
        return
    faults = f"{counted(len(result['broken']), 'fault')} in {counted(result['samples'], 'sample')}"
    output.line(out, faults, f"dataset {a.dataset} is broken:", "red")
    rows = [[item.get(name) for name in ("shard", "key", "member", "reason")] for item in result["broken"]]
    output.table(out, ("shard", "sample", "member", "reason"), rows)
    if not a.repair:
        output.next_step(out, f"{output.command('shards', 'verify', a.dataset, '--repair')}   (drops broken samples)")


def show_relabel(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """What was changed, and rows that fit nothing."""
    changed = result["relabelled"]
    done = f"{counted(len(changed), 'clip')} relabelled ({counted(result['samples'], 'sample')})"
    output.line(out, f"dataset {a.dataset}: {done}")
    output.table(out, ("clip", "was", "now"), [(one["clip"], one["was"], one["now"]) for one in changed])
    if result["unused"]:
        output.line(out, f"rows that fit no clip of this dataset: {', '.join(result['unused'])}")
    output.facts(out, totals(result["dataset"]))
    output.next_step(out, output.command("shards", "verify", a.dataset))


def show_forget(out: Console, result: dict[str, Any], a: argparse.Namespace) -> None:
    """What was removed and what is left."""
    gone = f"{counted(result['samples'], 'sample')} of {counted(result['clips'], 'clip')}"
    output.line(out, f"{a.identity} is removed from {a.dataset}: {gone} deleted; later builds refuse this identity")
    if result["also_as"]:
        output.line(out, f"its videos stood there under other names, too: {', '.join(result['also_as'])}")
    text = "priors that were trained on this dataset before still contain what they learned of this person; train them again"
    output.line(out, text)
    output.facts(out, totals(result["dataset"]))


def show_facts(out: Console, result: dict[str, object], a: argparse.Namespace) -> None:
    """All fields of the result."""
    output.facts(out, result)
