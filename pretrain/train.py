"""``headstart pretrain``: from a prior's name and a dataset to a registered version."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs import InputError, load_config, to_dict
from configs.machine import device_name
from pretrain.folder import file_sha256, task_class, write_prior


def pretrain(
    prior: str,
    data: str,
    config: str | Path | dict | None = None,
    out: str | None = None,
    workers: int | None = None,
    address: str | None = None,
    ray: bool = True,
    resume: bool | str = False,
    overrides: Sequence[str] = (),
    cluster: str | Path | dict | None = None,
) -> dict[str, Any]:
    """Train a prior and register it; returns the object that ``--json`` prints.

    Args:
        prior: ``audio-expression``, ``expression-visual`` or ``sync-expert``.
        data: dataset folder or ``s3://`` URL.
        config: a YAML file, a shipped name such as ``pretrain/sync-expert/tiny``, a mapping, or None for ``tiny``.
        out: the run's folder or URL; ``runs/PRIOR-TIME`` when absent.
        workers: training processes (one, or what ``cluster`` says); address: a Ray cluster.
        ray: False trains in this process (one worker).
        resume: False starts fresh (and refuses a folder that holds a run); True or ``"latest-or-fresh"`` continues the
            newest checkpoint of ``out`` if there is one; ``"latest"`` insists that there is one; a path or URL names it.
        overrides: ``["steps=100", "model.layers=2"]``.
        cluster: a shipped name such as ``cluster/single-node-8gpu``, a YAML file or a mapping; see ``cluster.launch.launch``.

    Raises:
        InputError: bad configuration, dataset or checkpoint.
    """
    task = task_class(prior)
    typed = load_config(task.config_class, config or f"pretrain/{prior}/tiny", overrides)
    if not ray and workers not in (None, 1):
        raise InputError(f"workers={workers} without Ray: one process has one worker; leave out --no-ray or --workers")
    check_data(task, typed, data)
    run = str(out) if out else f"runs/{prior}-{time.strftime('%Y%m%d-%H%M%S')}"
    checkpoint = choose_checkpoint(run, resume)
    from cluster.launch.launch import launch

    job = {"prior": prior, "data": str(data), "config": to_dict(typed), "run": run, "checkpoint": checkpoint}
    result = launch(
        "pretrain.train:work",
        job,
        workers=workers,
        address=address,
        ray=ray,
        run=run,
        gpus_per_worker=_gpus(typed) if ray and cluster is None else None,
        resume=resume is not False,
        cluster=cluster,
    )
    return result or _read_result(run)


def _gpus(config: Any) -> int:
    import torch

    return int(config.engine.device == "cuda" or (config.engine.device == "auto" and torch.cuda.is_available()))


def choose_checkpoint(run: str, resume: bool | str) -> str | None:
    """The checkpoint that a resume mode means (see :func:`pretrain`), or None for a fresh start.

    Raises:
        InputError: a fresh start into a run that exists, or no checkpoint where one must exist.
    """
    from cluster.checkpoint import latest_checkpoint
    from cluster.storage import storage

    if resume is False:
        if latest_checkpoint(run) is not None:
            raise InputError(f"{run}: holds a run already; add --resume to continue it, or name another --out")
        return None
    if resume is True or resume == "latest-or-fresh":
        return latest_checkpoint(run)
    if resume == "latest":
        found = latest_checkpoint(run)
        if found is None:
            raise InputError(f"{run}: holds no complete checkpoint to resume from; start fresh, or use latest-or-fresh")
        return found
    if not storage.exists(storage.join(resume, "state.json")):
        raise InputError(
            f"{resume}: no checkpoint there (state.json is missing); give a folder such as RUN/checkpoints/step-00000100"
        )
    return str(resume)


def check_data(task: type, config: Any, data: str) -> None:
    """Open the dataset once in the caller's process, so that wrong input is a sentence and not a worker's death."""
    train, held = open_split(task, config, data)
    task(config, train, held)


def open_split(task: type, config: Any, data: str) -> tuple[Any, Any]:
    """The dataset as (training people, held-out people), both checked.

    Raises:
        InputError: too few people, licence unknown, another rig.
    """
    from shards.read.dataset import open_dataset

    whole = open_dataset(data)
    holdout = config.holdout if isinstance(config.holdout, float) else list(whole.subset(config.holdout).identities)
    dataset = task.usable(whole, config)
    if len(dataset.identities) < 2:
        raise InputError(
            f"dataset {data}: {len(dataset.identities)} usable person(s) for {task.name}; a prior needs two or more, "
            "because people are held out to prove it; add clips of other people"
        )
    refuse_unknown_licence(dataset, data, config.allow_unknown_licence)
    refuse_other_rig(dataset, data)
    if not isinstance(holdout, float):  # people named to be kept out whom this prior cannot use anyway
        holdout = [name for name in holdout if name in dataset.identities]
    train, held = dataset.split(holdout)
    if not train.identities or not held.identities:
        raise InputError(
            f"dataset {data}: holdout {config.holdout} leaves {len(train.identities)} people to train on and "
            f"{len(held.identities)} to validate on; both need one or more"
        )
    return train, held


def refuse_unknown_licence(dataset: Any, data: str, allowed: bool) -> None:
    """Training on footage without a known consent is a decision, so it must be written down."""
    records = {name: dataset.licences[name] + dataset.consents[name] for name in dataset.identities}
    unknown = [name for name, values in records.items() if not values or "unknown" in map(str.lower, values)]
    if unknown and not allowed:
        few = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        raise InputError(
            f"dataset {data}: consent or licence unknown for {len(unknown)} people ({few}); "
            "record it with 'shards build --consent FILE.csv', or set allow_unknown_licence=true to take the decision"
        )


def refuse_other_rig(dataset: Any, data: str) -> None:
    """Expression coefficients mean nothing on another rig."""
    from heads.rig import load_rig

    rig = load_rig()
    theirs = dataset.rig or {}
    if theirs.get("sha256") and theirs["sha256"] != rig.sha256:
        raise InputError(
            f"dataset {data}: tracked with the rig {theirs.get('name')} ({theirs['sha256'][:12]}), this installation has "
            f"{rig.name} ({rig.sha256[:12]}); rebuild the shards, or install the version that built them"
        )


def work(job: dict[str, Any], context: Any) -> dict[str, Any] | None:
    """What each worker runs: train, prove, export, register. Returns the result on rank 0."""
    from pretrain.loop import Trainer

    started = time.perf_counter()
    task_type = task_class(job["prior"])
    config = load_config(task_type.config_class, job["config"])
    task = task_type(config, *open_split(task_type, config, job["data"]))
    tracker = _tracker(job, context) if context.rank == 0 else None
    trainer = Trainer(task, context.run, context, tracker)
    try:
        # After a failure the workers start anew: what the run saved meanwhile counts, not what it began with.
        trainer.begin(context.latest_checkpoint() or job["checkpoint"])
        finished = trainer.run()
        result = finish(trainer, job, finished, started) if trainer.engine.is_main else None
        trainer.engine.barrier()
        return result
    finally:
        trainer.close()
        if tracker is not None:
            tracker.close()


def _tracker(job: dict[str, Any], context: Any) -> Any:
    from cluster.registry.run_log import RunLog

    name = str(context.run).rstrip("/").rsplit("/", 1)[-1]
    return RunLog(name, {"prior": job["prior"], "data": job["data"], **job["config"]}, run=context.run)


def finish(trainer: Any, job: dict[str, Any], finished: bool, started: float) -> dict[str, Any]:
    """Rank 0 after the last step: evidence, report, prior folder, registration, end-of-run block."""
    from cluster.checkpoint import latest_checkpoint

    speed = trainer.speed()
    result: dict[str, Any] = {
        "prior": job["prior"],
        "run": trainer.run_url,
        "checkpoint": latest_checkpoint(trainer.run_url),
        "weights_sha256": None,
        "steps": trainer.step,
        "samples": trainer.samples,
        "seconds": round(time.perf_counter() - started, 3),
        "samples_per_second": round(speed["samples_per_second"], 3),
        "wait_share": round(speed["wait_share"], 4),
        "peak_memory_mb": round(speed["peak_memory_mb"], 1),
        "validation": {},
        "registered": None,
        "finished": finished,
    }
    if finished:
        publish(trainer, job, result)
        result["seconds"] = round(time.perf_counter() - started, 3)
    _write_result(trainer.run_url, result)
    print(end_of_run(result), file=sys.stderr)
    return result


def publish(trainer: Any, job: dict[str, Any], result: dict[str, Any]) -> None:
    """Score the averaged weights on the held-out people, write the prior folder and register it."""
    import torch

    from cluster.registry import registry
    from cluster.storage import storage

    with torch.no_grad():
        evidence = trainer.task.evidence(trainer.average)
    result["validation"] = evidence.summary
    with tempfile.TemporaryDirectory(prefix="headstart-prior-") as scratch:
        folder = Path(scratch) / "prior"
        info = write_prior(folder, trainer.task, trainer.average, evidence.summary)
        result["weights_sha256"] = info["weights_sha256"]
        _write_report(folder, evidence, info, result, trainer.loss_text())
        storage.upload_tree(folder, storage.join(trainer.run_url, "prior"))
        if trainer.tracker is not None:
            _track_evidence(trainer, evidence, folder)
        registered = registry.register(
            job["prior"], folder, metrics=evidence.summary, config=info["config"], run=trainer.run_url
        )
        result["registered"] = {"name": registered["name"], "version": registered["version"]}


def _track_evidence(trainer: Any, evidence: Any, folder: Path) -> None:
    trainer.tracker.log({f"evidence/{name}": value for name, value in evidence.summary.items()}, trainer.step)
    for name, picture in evidence.pictures.items():
        trainer.tracker.image(name, picture, trainer.step)
    trainer.tracker.artifact(folder / "report.md")


def _write_report(folder: Path, evidence: Any, info: dict, result: dict, losses: str) -> None:
    from PIL import Image

    held = info["dataset"]["held_out"]
    head = [
        f"# {info['prior']}: evidence on people it never saw",
        "",
        f"Trained on {len(info['dataset']['identities'])} people, {info['dataset']['hours']:.3f} h; "
        f"held out {len(held)}: {', '.join(held)}.",
        f"{result['steps']} steps, {result['samples_per_second']:.1f} samples/s, "
        f"code {info['code_version']}, device {device_name()}.",
        "",
    ]
    for name, picture in evidence.pictures.items():
        Image.fromarray(picture).save(folder / f"{name}.png")
    shown = "".join(f"\n![{name}]({name}.png)\n" for name in evidence.pictures)
    (folder / "report.md").write_text("\n".join(head) + "\n" + evidence.markdown() + shown)
    (folder / "report.json").write_text(json.dumps({"rows": evidence.rows, "summary": evidence.summary}, indent=1))
    (folder / "losses.txt").write_text(losses)


def _write_result(run: str, result: dict[str, Any]) -> None:
    from cluster.storage import storage

    storage.write_bytes(storage.join(run, "result.json"), json.dumps(result, indent=1).encode())


def _read_result(run: str) -> dict[str, Any]:
    from cluster.storage import storage

    return json.loads(storage.read_bytes(storage.join(run, "result.json")))


def end_of_run(result: dict[str, Any]) -> str:
    """The block printed when a run ends."""
    lines = [
        f"{result['prior']}: {'finished' if result['finished'] else 'stopped as asked, state saved'} at step {result['steps']}",
        f"  samples      {result['samples']} at {result['samples_per_second']:.1f}/s, "
        f"{100 * result['wait_share']:.1f} % of the time waiting for data",
        f"  time         {result['seconds']:.1f} s",
        f"  memory       {result['peak_memory_mb']:.0f} MB at the peak",
        f"  checkpoint   {result['checkpoint']}",
    ]
    lines += [f"  {name:<28} {value:.4f}" for name, value in result["validation"].items() if isinstance(value, float)]
    if result["registered"]:
        lines.append(f"  registered   models:/{result['registered']['name']}/{result['registered']['version']}")
    return "\n".join(lines)


__all__ = ["check_data", "choose_checkpoint", "file_sha256", "open_split", "pretrain", "work"]
