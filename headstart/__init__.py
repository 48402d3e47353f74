"""Headstart's public face: the names that users import, and the command line.

``import headstart`` is cheap: every public name is imported from its room when it is first used. The command line is
thin: it parses, calls one function of a room, prints. No room imports this module.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

__version__ = "0.1.0"

# Public name -> where it lives. Nothing is imported before it is asked for.
_PUBLIC = {
    "InputError": "configs:InputError",
    "rasterization": "heads:rasterization",
    "load_rig": "heads.rig:load_rig",
    "read_dataset": "shards.read.dataset:open_dataset",
    "build_dataset": "shards.build.build:build",
    "synthesize": "shards.synthetic:synthesize",
    "track_video": "shards.tracking:track_video",
    "pretrain_prior": "pretrain.train:pretrain",
    "load_prior": "pretrain:load_prior",
    "adapt_avatar": "adapt.job:adapt",
    "load_avatar": "adapt.avatar.avatar:load_avatar",
    "Talker": "adapt.talk.talk:Talker",
    "talk": "adapt.talk.talk:talk",
    "evaluate": "adapt.evaluate.evaluate:evaluate",
    "export": "adapt.avatar.export.ply:export",
    "doctor": "headstart.installation:doctor",
}

__all__ = ["__version__", "main", *sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(
            f"module 'headstart' has no attribute {name!r}; public names: {', '.join(sorted(_PUBLIC))}"
        )
    return _load(_PUBLIC[name])


def __dir__() -> list[str]:
    return __all__


def _load(target: str) -> Any:
    from configs import runtime

    runtime.prepare()
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


# --- the command line ------------------------------------------------------------------------------------------------

Handler = Callable[[argparse.Namespace], Any]


class _Parser(argparse.ArgumentParser):
    """argparse that points at --help instead of printing a page for a misspelt option."""

    takes_overrides = False  # key=value may stand anywhere on the line

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """argparse's own loses positional arguments that stand behind an option."""
        found, rest = super().parse_known_args(args, namespace)
        if self.takes_overrides:
            loose = [text for text in rest if "=" in text and not text.startswith("-")]
            found.overrides = [*found.overrides, *loose]
            rest = [text for text in rest if text not in loose]
        return found, rest

    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}; '{self.prog} --help' lists what it takes\n")


def _parser() -> _Parser:
    parser = _Parser(
        prog="headstart", description="Gaussian head priors from many people; talking heads from one person's clip."
    )
    parser.add_argument("--version", action="version", version=f"headstart {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    _demo_commands(commands)
    _shards_commands(commands)
    _pretrain_commands(commands)
    _priors_commands(commands)
    _avatar_commands(commands)
    return parser


def _command(commands: Any, name: str, handler: Handler, description: str) -> _Parser:
    parser: _Parser = commands.add_parser(name, help=description, description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object on the last line of stdout")
    parser.set_defaults(handler=handler)
    return parser


def _demo_commands(commands: Any) -> None:
    demo = _command(commands, "demo", _demo, "the main job end to end on this machine")
    demo.add_argument("--videos", metavar="DIR", help="real clips instead of generated talkers")
    demo.add_argument("--consent", metavar="FILE.csv", help="consent and licences of the real clips")
    demo.add_argument("--hold-out", metavar="ID,ID", help="people kept out of the corpus for adaptation and evaluation")
    demo.add_argument("--out", default="demo", metavar="DIR", help="where everything goes (default: demo)")
    demo.add_argument("--identities", type=int, help="how many talkers to generate")
    demo.add_argument("--minutes", type=float, help="total minutes to spend on the three priors")
    demo.add_argument("--budget", help="budget of each adaptation, such as 60s")
    demo.add_argument("--people", type=int, help="how many held-out people to adapt")
    demo.add_argument("--seed", type=int, default=0)
    _command(
        commands, "doctor", _doctor, "what is installed, which backends will be used, what is missing and how to get it"
    )


def _shards_commands(commands: Any) -> None:
    shards = commands.add_parser("shards", help="videos to verified, resumable shards").add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=_Parser
    )
    build = _command(shards, "build", _shards_build, "track videos into a dataset of shards; run again to continue")
    build.add_argument("videos", nargs="+", metavar="VIDEO_OR_DIR")
    build.add_argument("--out", required=True, metavar="DATASET", help="folder or s3:// URL")
    build.add_argument("--consent", metavar="FILE.csv", help="columns: clip,identity,licence,consent,source")
    build.add_argument("--workers", type=int, default=1)
    build.add_argument("--address", help="Ray cluster to use ('auto' or host:port); default: processes of this machine")
    build.add_argument(
        "--features", default="logmel", help="comma-separated: logmel,wav2vec2,hubert, or wav2vec2=FOLDER"
    )
    build.add_argument("--size", type=int, default=512, help="side of the crop in px")

    synthesize = _command(
        shards, "synthesize", _shards_synthesize, "generate synthetic talkers with exact ground truth"
    )
    synthesize.add_argument("--identities", type=int, required=True)
    synthesize.add_argument("--seconds", type=float, required=True)
    synthesize.add_argument("--seed", type=int, default=0)
    synthesize.add_argument("--size", type=int, default=256)
    synthesize.add_argument("--workers", type=int, default=1)
    synthesize.add_argument("--out", required=True, metavar="DATASET")

    info = _command(shards, "info", _shards_info, "counts, hours, identities")
    info.add_argument("dataset", metavar="DATASET")
    verify = _command(
        shards, "verify", _shards_verify, "every checksum, schema, length, and the agreement of audio, frames and track"
    )
    verify.add_argument("dataset", metavar="DATASET")
    verify.add_argument("--repair", action="store_true", help="drop what is broken and write the index anew")
    forget = _command(shards, "forget", _shards_forget, "withdraw a person: rewrites the shards that hold them")
    forget.add_argument("dataset", metavar="DATASET")
    forget.add_argument("--identity", required=True, metavar="ID")
    basis = _command(
        shards, "basis", _shards_basis, "learn the rig's identity and expression bases from a dataset or clips"
    )
    basis.add_argument("source", metavar="DATASET_OR_DIR")
    basis.add_argument("--out", required=True, metavar="FILE.npz")


def _pretrain_commands(commands: Any) -> None:
    pretrain = _command(
        commands, "pretrain", _pretrain, "train a prior: audio-expression, expression-visual or sync-expert"
    )
    pretrain.add_argument("prior", metavar="PRIOR", help="audio-expression | expression-visual | sync-expert")
    pretrain.add_argument("--data", required=True, metavar="DATASET")
    pretrain.add_argument(
        "--config", metavar="FILE", help="YAML file or shipped size: tiny, base, large (default: tiny)"
    )
    pretrain.add_argument("--out", metavar="RUN", help="run folder or s3:// URL (default: runs/PRIOR-TIME)")
    pretrain.add_argument("--workers", type=int, default=1)
    pretrain.add_argument("--address", help="Ray cluster to join: 'auto' or host:port")
    pretrain.add_argument(
        "--cluster", metavar="FILE", help="YAML file or shipped name: local, single-node-8gpu, multi-node"
    )
    pretrain.add_argument("--no-ray", action="store_true", help="run in this process")
    pretrain.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")
    pretrain.add_argument("overrides", nargs="*", metavar="key=value")
    pretrain.takes_overrides = True


def _priors_commands(commands: Any) -> None:
    priors = commands.add_parser("priors", help="the model registry").add_subparsers(
        dest="action", required=True, metavar="ACTION", parser_class=_Parser
    )
    _command(priors, "list", _priors_list, "registered priors, versions and aliases")
    _command(priors, "show", _priors_show, "one version's record").add_argument(
        "prior", metavar="NAME[@alias|/version]"
    )
    pull = _command(priors, "pull", _priors_pull, "fetch a prior into the local cache, verified by hash")
    pull.add_argument("prior", metavar="NAME[@alias|/version]")
    promote = _command(priors, "promote", _priors_promote, "give a version an alias")
    promote.add_argument("prior", metavar="NAME/VERSION")
    promote.add_argument("--alias", default="champion")


def _avatar_commands(commands: Any) -> None:
    adapt = _command(commands, "adapt", _adapt, "one person's clip into an avatar")
    adapt.add_argument("video", metavar="VIDEO")
    adapt.add_argument("--out", required=True, metavar="AVATAR", help="folder or s3:// URL")
    adapt.add_argument("--recipe", default="headstart", help="headstart | ggtalker | talkinggaussian | fg3dgs")
    adapt.add_argument(
        "--prior", metavar="URI|none", help="folder, models:/NAME@alias, or 'none' (default: champions when registered)"
    )
    adapt.add_argument("--seconds", type=float, help="train on the first S seconds")
    adapt.add_argument("--budget", default="60s", help="60s, 10m or 1000it")
    adapt.add_argument("--size", type=int, help="side of the trained frames in px")
    adapt.add_argument("--set", nargs="*", action="extend", default=[], metavar="key=value", dest="overrides")
    adapt.add_argument("--resume", action="store_true")
    adapt.add_argument("--self-contained", action="store_true", help="store the prior's weights inside the avatar")
    adapt.add_argument("--device", default="auto")
    adapt.add_argument("--seed", type=int, default=0)
    adapt.add_argument("--overwrite", action="store_true", help="replace what stands at --out")

    talk = _command(commands, "talk", _talk, "any speech through an avatar into a video")
    talk.add_argument("avatar", metavar="AVATAR")
    talk.add_argument("audio", metavar="AUDIO")
    talk.add_argument("--out", required=True, metavar="VIDEO.mp4", help="path or s3:// URL")
    talk.add_argument("--pose-from", metavar="VIDEO", help="head motion of this clip")
    talk.add_argument("--pose", default="clip", help="clip (the training clip's, looped), generated or still")
    for angle in ("yaw", "pitch", "roll"):
        talk.add_argument(f"--{angle}", type=float, help="degrees; holds the head still at this angle")
    talk.add_argument("--blink", default="natural", help="natural, none, or a closure from 0 to 1")
    talk.add_argument(
        "--control",
        nargs="*",
        action="extend",
        default=[],
        metavar="NAME=AMOUNT",
        help="jaw, smile, brows_up, gaze_x, ...",
    )
    talk.add_argument("--style", help="speaking style: 'own', 'mean' or a file")
    talk.add_argument(
        "--background",
        help="original (default with the clip's own poses), model (default with others), plain or rgba",
    )
    talk.add_argument("--prior", metavar="URI", help="audio-expression prior to speak with (default: the avatar's)")
    talk.add_argument("--device", default="auto")
    talk.add_argument("--seed", type=int, default=0)
    talk.add_argument("--overwrite", action="store_true")

    evaluate = _command(commands, "evaluate", _evaluate, "metrics.json, a report page and a side-by-side video")
    evaluate.add_argument("avatar", nargs="?", metavar="AVATAR")
    evaluate.add_argument("video", nargs="?", metavar="VIDEO")
    evaluate.add_argument(
        "--from", type=float, dest="start", metavar="S", help="test from second S (default: the last 1/11)"
    )
    evaluate.add_argument("--frames", metavar="VIDEO", help="score this video of any method; needs --against")
    evaluate.add_argument("--against", metavar="VIDEO", help="the true video for --frames")
    evaluate.add_argument("--ablations", action="store_true", help="the table with and without each prior")
    evaluate.add_argument("--out", required=True, metavar="DIR", help="folder or s3:// URL")
    evaluate.add_argument("--lpips", metavar="BACKBONE,LINEAR", help="weight files of LPIPS; without them it is null")
    evaluate.add_argument("--sync", metavar="URI", help="sync expert to measure with (default: the champion)")
    evaluate.add_argument(
        "--syncnet", metavar="FILE", help="weights of the original SyncNet, for its Sync-C and Sync-D"
    )
    evaluate.add_argument("--device", default="auto")
    evaluate.add_argument("--overwrite", action="store_true")

    export = _command(commands, "export", _export, "an avatar as a .ply of 3D Gaussians")
    export.add_argument("avatar", metavar="AVATAR")
    export.add_argument("--out", required=True, metavar="FILE.ply", help="path or s3:// URL")
    export.add_argument("--overwrite", action="store_true")
    export.add_argument("--frame", type=int, help="frame of the training clip (default: the neutral head)")


def _demo(a: argparse.Namespace) -> Any:
    options = {
        k: v
        for k, v in (("identities", a.identities), ("budget", a.budget), ("people", a.people), ("minutes", a.minutes))
        if v is not None
    }
    hold_out = a.hold_out.split(",") if a.hold_out else None
    return _load("headstart.demo.story:demo")(
        a.out, videos=a.videos, consent=a.consent, hold_out=hold_out, seed=a.seed, **options
    )


def _doctor(a: argparse.Namespace) -> Any:
    result, rendering = _load("headstart.installation:doctor")(), _load("heads.raster.probes:rendering_check")()
    return {"ok": result["ok"] and rendering["ok"], "checks": [*result["checks"], rendering]}


def _shards_build(a: argparse.Namespace) -> Any:
    return _load("shards.build.build:build")(
        a.videos,
        a.out,
        consent=a.consent,
        workers=a.workers,
        address=a.address,
        features=a.features.split(","),
        size=a.size,
    )


def _shards_synthesize(a: argparse.Namespace) -> Any:
    return _load("shards.synthetic:synthesize")(a.identities, a.seconds, a.seed, a.out, size=a.size, workers=a.workers)


def _shards_info(a: argparse.Namespace) -> Any:
    return _load("shards.check.verify:info")(a.dataset)


def _shards_verify(a: argparse.Namespace) -> Any:
    return _load("shards.check.verify:verify")(a.dataset, repair=a.repair)


def _shards_forget(a: argparse.Namespace) -> Any:
    return _load("shards.people.forget:forget")(a.dataset, a.identity)


def _shards_basis(a: argparse.Namespace) -> Any:
    return _load("shards.basis.basis:learn_basis")(a.source, a.out)


def _pretrain(a: argparse.Namespace) -> Any:
    return _load("pretrain.train:pretrain")(
        a.prior,
        a.data,
        a.config,
        a.out,
        workers=a.workers,
        address=a.address,
        cluster=a.cluster,
        ray=not a.no_ray,
        resume=a.resume,
        overrides=a.overrides,
    )


def _priors_list(a: argparse.Namespace) -> Any:
    return {"priors": _load("cluster.registry.registry:list_models")()}


def _priors_show(a: argparse.Namespace) -> Any:
    return _load("cluster.registry.registry:show")(*_name_and_version(a.prior))


def _priors_pull(a: argparse.Namespace) -> Any:
    name, version = _name_and_version(a.prior)
    uri = a.prior if ":" in a.prior else f"models:/{name}{'/' if str(version).isdigit() else '@'}{version}"
    return {"prior": a.prior, "folder": str(_load("cluster.registry.registry:resolve")(uri))}


def _priors_promote(a: argparse.Namespace) -> Any:
    name, version = _name_and_version(a.prior)
    return _load("cluster.registry.registry:promote")(name, version, alias=a.alias)


def _name_and_version(text: str) -> tuple[str, str]:
    """``NAME``, ``NAME@alias`` or ``NAME/VERSION`` (with or without ``models:/``); the default is ``@champion``."""
    text = text.removeprefix("models:/")
    for separator in "@/":
        name, found, version = text.partition(separator)
        if found:
            return name, version
    return text, "champion"


def _adapt(a: argparse.Namespace) -> Any:
    return _load("adapt.job:adapt")(
        a.video,
        a.out,
        recipe=a.recipe,
        prior=a.prior,
        seconds=a.seconds,
        budget=a.budget,
        resume=a.resume,
        set=a.overrides,
        self_contained=a.self_contained,
        size=a.size,
        device=a.device,
        seed=a.seed,
        overwrite=a.overwrite,
    )


def _talk(a: argparse.Namespace) -> Any:
    return _load("adapt.talk.talk:talk")(
        a.avatar,
        a.audio,
        a.out,
        pose_from=a.pose_from,
        yaw=a.yaw,
        pitch=a.pitch,
        roll=a.roll,
        pose=a.pose,
        blink=a.blink,
        controls=a.control,
        style=a.style,
        background=a.background,
        prior=a.prior,
        device=a.device,
        seed=a.seed,
        overwrite=a.overwrite,
    )


def _evaluate(a: argparse.Namespace) -> Any:
    return _load("adapt.evaluate.evaluate:evaluate")(
        a.avatar,
        a.video,
        a.out,
        start=a.start,
        frames=a.frames,
        against=a.against,
        ablations=a.ablations,
        lpips=a.lpips,
        sync=a.sync,
        syncnet=a.syncnet,
        device=a.device,
        overwrite=a.overwrite,
    )


def _export(a: argparse.Namespace) -> Any:
    return _load("adapt.avatar.export.ply:export")(a.avatar, a.out, frame=a.frame, overwrite=a.overwrite)


def _print(result: Any, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result, default=str))
        return
    for key, value in (result or {}).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{key}:")
            for row in value:
                print("  " + "  ".join(f"{k}={_short(v)}" for k, v in row.items()))
        else:
            print(f"{key}: {_short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k} {_short(v)}" for k, v in value.items())
    return str(value)


def _failed(result: Any) -> bool:
    """Checks that ran and found something wrong (verify, doctor) exit with 2, like any other wrong input."""
    return isinstance(result, dict) and result.get("ok") is False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 the user's input is wrong, 1 our fault."""
    arguments = _parser().parse_args(argv)
    from configs import InputError

    try:
        result = arguments.handler(arguments)
    except InputError as error:
        print(f"headstart: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("headstart: interrupted; what was finished is kept, run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    _print(result, arguments.json)
    return 2 if _failed(result) else 0
