"""The one training loop: engines, readers and checkpoints, but nothing specific to a prior."""

from __future__ import annotations

import copy
import json
import math
import resource
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from cluster.checkpoint import BackgroundWriter, checkpoint_url, fetch_checkpoint
from cluster.engine.engine import Engine
from cluster.engine.rank_times import Meter, describe
from cluster.engine.rank_times import metrics as rank_metrics
from cluster.storage import storage
from cluster.storage.tensors import save_tensors
from configs import InputError, progress, runtime, to_dict
from configs.devices import peak_memory
from configs.scratch import ScratchFolder
from configs.seeds import derive
from pretrain.beginnings import prepare
from pretrain.config import check_same_run
from pretrain.data.prefetch import Prefetcher
from pretrain.optimiser import rate, update_average, update_average_from_state
from pretrain.tally import Tally
from pretrain.task import Task
from shards.read.reader import Reader

STATE_SCHEMA = 1
ZERO3_AVERAGE_EVERY = 10  # steps: gathering all weights is costly, so the average is updated less often


class NonFiniteLoss(RuntimeError):
    """The loss or gradient is not finite. Carries the step and the keys of its samples.

    ``retry`` is False: the same step would fail again, so the launcher does not restart the workers.
    """

    retry = False

    def __init__(self, step: int, rank: int, keys: list[str], value: float, what: str = "loss") -> None:
        self.step, self.keys = step, keys
        names = ", ".join(keys) if keys else "samples of another rank"
        super().__init__(
            f"step {step}, rank {rank}: the {what} is {value}; the weights were not touched; samples: {names}"
        )


class Trainer:
    """Everything of one run, built in the constructor; ``run`` trains to the end or to a request to stop.

    Args:
        task: the prior's side of the loop.
        run_url: the run's folder or ``s3://`` URL.
        context: rank, world size and requests to stop (see ``cluster.launch.launch``).
        tracker: takes metrics and pictures; None on ranks other than 0.
    """

    def __init__(self, task: Task, run_url: str, context: Any, tracker: Any = None) -> None:
        runtime.keep_memory()
        self.meter = Meter()
        self._named: set[tuple[int, str]] = set()  # slow ranks that were named already
        self.task, self.config, self.run_url, self.context, self.tracker = task, task.config, run_url, context, tracker
        config = self.config
        torch.manual_seed(derive(config.seed, "weights"))
        self.engine = Engine(config.engine)
        self.step, self.samples = 0, 0
        self.losses: list[float] = []
        objective = task.objective()
        optimizer = torch.optim.AdamW(
            task.groups(objective),
            lr=config.optimiser.lr,
            betas=(config.optimiser.beta1, config.optimiser.beta2),
            weight_decay=config.optimiser.weight_decay,
            fused=True,  # one pass over weights and moments, on a CPU too
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: rate(s, config.steps, config.optimiser))
        self.average = copy.deepcopy(objective).requires_grad_(False).eval().to(self.engine.device)
        self._fresh_objective, self._optimizer, self._scheduler = objective, optimizer, scheduler
        self.reader = Reader(
            task.train,
            task.view(training=True),
            batch_size=config.batch_size // config.engine.accumulate,
            seed=config.seed,
            rank=self.engine.rank,
            world_size=self.engine.world_size,
            workers=config.reader_workers,
            weights=task.identity_weights,
            max_broken=config.max_broken,
        )
        self.batches: Prefetcher | None = None
        self._wait, self._busy, self._session_samples = 0.0, 0.0, 0
        self._tally = Tally(self.engine)
        self._writer = BackgroundWriter()
        self._unreported: tuple[str, dict[str, float]] | None = None
        self._newest: dict[str, float] = {}
        self._stopping = False

    # -- state ---------------------------------------------------------------------------------------------------

    def begin(self, checkpoint: str | None) -> None:
        """Start fresh (with closed-form initial values), or from a checkpoint folder or URL."""
        if checkpoint is None:
            prepare(self.task, self._fresh_objective, self.engine)
            self.average.load_state_dict(self._fresh_objective.state_dict())
        self.model = self.engine.prepare(self._fresh_objective, self._optimizer, self._scheduler)
        if checkpoint is not None:
            self._load(checkpoint)
        pin = self.engine.steps_behind  # only copies from pinned memory are asynchronous
        self.batches = batches = Prefetcher(self.reader, self.config.prefetch, pin)
        self._incoming = self.meter.data(iter(lambda: batches.next(), None))

    def save(self) -> str:
        """Write the complete state and wait for it; returns the checkpoint's URL. Collective: every rank calls it."""
        url = self.start_saving()
        self._writer.wait()
        self.engine.barrier()
        return url

    def start_saving(self) -> str:
        """Copy the complete state and write it in the background; returns the checkpoint's URL.

        Collective. An error in writing is raised at the next save. The next :meth:`train_step` changes nothing before it is copied.
        """
        self._writer.wait()
        taken = self.engine.snapshot(also=self.average.state_dict())
        if not self.engine.is_main:
            return checkpoint_url(self.run_url, self.step)
        texts = {"state.json": json.dumps(self._state(), indent=1), "losses.txt": self.loss_text()}

        def write(folder: Path) -> None:
            taken.write(folder / "engine")
            save_tensors(taken.also, folder / "average.safetensors")
            for name, text in texts.items():
                (folder / name).write_text(text)

        return self._writer.start(self.run_url, self.step, write, self.config.keep)

    def _state(self) -> dict[str, Any]:
        return {
            "schema": STATE_SCHEMA,
            "prior": self.task.name,
            "step": self.step,
            "samples": self.samples,
            "reader": self.batches.state if self.batches else self.reader.state_dict(),
            "config": to_dict(self.config),
            "dataset": self.task.train.fingerprint,
            # Everything random is derived from (seed, purpose, step, rank), so there is no generator state to store.
            "random": "derived",
        }

    def _load(self, checkpoint: str) -> None:
        with ScratchFolder("resume") as scratch:
            folder = fetch_checkpoint(checkpoint, scratch)
            state = read_state(folder, checkpoint, self.task.name)
            check_same_run(state["config"], json.loads(json.dumps(to_dict(self.config))), checkpoint)
            if state["dataset"] != self.task.train.fingerprint:
                raise InputError(
                    f"{checkpoint}: written with other data (fingerprint {state['dataset'][:12]}, "
                    f"this dataset has {self.task.train.fingerprint[:12]}); resume with the dataset it was "
                    "written with, or train anew with another --out"
                )
            self.engine.load(folder / "engine")
            self.average.load_state_dict(load_file(folder / "average.safetensors"))
            lines = (folder / "losses.txt").read_text().splitlines()
        self.losses = [float.fromhex(line.split()[1]) for line in lines]
        self.step, self.samples = state["step"], state["samples"]
        self.reader.load_state_dict(state["reader"])

    def loss_text(self) -> str:
        """One line per step: its number and the loss as an exact hexadecimal float."""
        return "".join(f"{i} {value.hex()}\n" for i, value in enumerate(self.losses))

    # -- training ------------------------------------------------------------------------------------------------

    def train_step(self) -> dict[str, float]:
        """One optimiser step over ``accumulate`` micro-batches; returns its metrics, on an accelerator the latest known ones.

        Raises:
            NonFiniteLoss: before any weight changes; on an accelerator at the next :meth:`settle`.
        """
        parts: list[dict[str, torch.Tensor]] = []
        keys: list[str] = []
        for micro in range(self.config.engine.accumulate):
            started = time.perf_counter()
            batch = next(self._incoming)
            self._wait += time.perf_counter() - started
            keys = list(batch.get("keys", ()))
            torch.manual_seed(derive(self.config.seed, "step", self.step, micro, self.engine.rank))
            with self.meter.computing():
                loss, metrics = self.model({k: self._to_device(v) for k, v in batch.items()})
            if self.engine.steps_behind:
                self._tally.refuse(loss)
            else:
                self._refuse(loss.detach(), keys, "loss")
            with self.meter.computing():
                self.engine.backward(loss)
            parts.append({"loss": loss.detach(), **metrics})
            self._session_samples += len(keys) * self.engine.world_size
            self.samples += len(keys) * self.engine.world_size
        if self.engine.steps_behind:
            return self._stepped_behind(parts, keys)
        norm = self.engine.clip_and_step()
        if norm is not None and not math.isfinite(float(norm)):
            raise NonFiniteLoss(self.step, self.engine.rank, keys, float(norm), "gradient")
        means = {
            name: float(self.engine.mean(torch.stack([p[name].float() for p in parts]).mean())) for name in parts[0]
        }
        means["gradient_norm"] = float(norm) if norm is not None else 0.0
        self.losses.append(means["loss"])
        self._update_average()
        self.step += 1
        return means

    def _stepped_behind(self, parts: list[dict[str, torch.Tensor]], keys: list[str]) -> dict[str, float]:
        norm = self.engine.step_behind(self._tally.broken)
        means = {name: torch.stack([part[name].float() for part in parts]).mean() for name in parts[0]}
        self._tally.add(self.step, keys, means, norm, bool(self.context.should_stop()))
        self._update_average()
        self.step += 1
        every = (self.config.log_every, self.config.checkpoint_every, self.config.validate_every)
        if self.step == self.config.steps or any(self.step % often == 0 for often in every):
            self.settle()
        return self._newest

    def settle(self) -> None:
        """Read back the metrics of the steps since the last call. Collective.

        Raises:
            NonFiniteLoss: one of the steps was not finite; no weight has changed since.
        """
        found, stop, broken = self._tally.settle()
        if broken is not None:
            raise NonFiniteLoss(broken.step, self.engine.rank, broken.keys, broken.value, broken.what)
        self.losses += [metrics["loss"] for metrics in found]
        self._newest, self._stopping = (found[-1] if found else self._newest), self._stopping or stop

    def _stops(self) -> bool:
        """Whether any rank was asked to stop. Collective, except between settled steps of an accelerator."""
        if self.engine.steps_behind:
            return self._stopping
        return self.engine.any(bool(self.context.should_stop()))

    def _to_device(self, value: Any) -> Any:
        return value.to(self.engine.device, non_blocking=True) if isinstance(value, torch.Tensor) else value

    def _refuse(self, loss: torch.Tensor, keys: list[str], what: str) -> None:
        finite = bool(torch.isfinite(loss).all())
        # All ranks must stop together; otherwise the others would hang in the next collective.
        if self.engine.any(not finite):
            raise NonFiniteLoss(self.step, self.engine.rank, keys if not finite else [], float(loss), what)

    def _update_average(self) -> None:
        if self.engine.mode != "zero3":
            update_average(self.average, self.engine.unwrapped, self.config.ema, self.step)
        elif (self.step + 1) % ZERO3_AVERAGE_EVERY == 0 or self.step + 1 == self.config.steps:
            state = self.engine.full_state_dict()
            if state is not None:
                steps = range(self.step - self.step % ZERO3_AVERAGE_EVERY, self.step + 1)
                update_average_from_state(self.average, state, self.config.ema, steps)

    def run(self) -> bool:
        """Train to ``config.steps`` (returns True) or to a request to stop (False); the state is saved in both cases."""
        with progress.task(f"training {self.task.name}", self.config.steps, "steps") as shown:
            return self._run(shown)

    def _run(self, shown: progress.Task) -> bool:
        config, saved_at, started = self.config, self.step, time.perf_counter()
        while self.step < config.steps:
            metrics = self.train_step()
            self._busy += time.perf_counter() - started
            started = time.perf_counter()
            shown.update(self.step, note=f"loss {metrics['loss']:.4g}" if metrics else None)
            if self.step % config.log_every == 0 or self.step == config.steps:
                self._log(
                    {**metrics, "lr": float(self._scheduler.get_last_lr()[0]), **self.speed(), **self._rank_times()}
                )
            if self._stops():
                if saved_at != self.step:
                    self._report_last()
                    self._report(self.save(), metrics)
                self._report_last()
                return False
            if self.step % config.validate_every == 0 and self.step < config.steps:
                self.validate()
            if self.step % config.checkpoint_every == 0 or self.step == config.steps:
                saved_at = self.step
                self._report_last()
                self._unreported = (self.start_saving(), {"step": self.step, **metrics})
            started = time.perf_counter()
        self._report_last()
        if saved_at != self.step or not self.losses:
            self._report(self.save(), {})
        return True

    def _report_last(self) -> None:
        """Report a checkpoint that was written in the background to the launcher, once it is published. Collective."""
        if self._unreported is not None:
            self._writer.wait()
            self.engine.barrier()
            url, metrics = self._unreported
            self._unreported = None
            self.context.report(url, metrics)

    def validate(self) -> dict[str, float]:
        """Metrics and pictures of the averaged weights on the held-out people; rank 0 computes, the others wait."""
        figures: dict[str, float] = {}
        if self.engine.is_main:
            with torch.no_grad():
                figures = self.task.validate(self.average)
                if self.tracker is not None:
                    for name, picture in self.task.pictures(self.average).items():
                        self.tracker.image(name, picture, self.step)
            self._log({f"validation/{name}": value for name, value in figures.items()})
        self.engine.barrier()
        return figures

    def speed(self) -> dict[str, float]:
        """Samples per second over all ranks, share of the time spent waiting for data, peak memory in MB."""
        busy = max(self._busy, 1e-9)
        on_device = peak_memory(self.engine.device)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {
            "samples_per_second": self._session_samples / busy,
            "wait_share": self._wait / busy,
            "peak_memory_mb": resident if on_device is None else on_device / 2**20,
        }

    def _rank_times(self) -> dict[str, float]:
        """How the ranks spent their time since the last call; names a slow or starved rank. Collective."""
        table = self.meter.table(self.engine)
        self.meter.reset()
        trouble = describe(table)
        if trouble and self.engine.is_main and self.engine.world_size > 1 and trouble.kind not in self._named:
            self._named.add(trouble.kind)
            progress.say(trouble.sentence)
        return rank_metrics(table)

    def close(self) -> None:
        """Stop the reading thread and wait for a checkpoint that is being written."""
        if self.batches is not None:
            self.batches.close()
        self._writer.wait()

    def _report(self, checkpoint: str, metrics: dict[str, float]) -> None:
        self.context.report(checkpoint, {"step": self.step, **metrics})

    def _log(self, metrics: dict[str, float]) -> None:
        if self.engine.is_main and self.tracker is not None:
            self.tracker.log(metrics, self.step)


def read_state(folder: storage.Url, where: str, prior: str) -> dict[str, Any]:
    """The small part of a checkpoint's state, configuration included.

    Args:
        folder: the checkpoint, or a copy of it.
        where: what messages call it.
        prior: the prior that it has to be of.

    Raises:
        InputError: not a checkpoint, or one of another version or prior.
    """
    path = storage.join(folder, "state.json")
    if not storage.exists(path):
        raise InputError(
            f"{where}: no state.json, so this is not a checkpoint of a pretraining run; give a checkpoint folder"
        )
    state = storage.read_json(path)
    if state.get("schema") != STATE_SCHEMA:
        raise InputError(f"{where}: checkpoint schema {state.get('schema')}, this version reads {STATE_SCHEMA}")
    if state.get("prior") != prior:
        raise InputError(f"{where}: checkpoint of the prior '{state.get('prior')}', expected '{prior}'")
    return state
