"""The training loop. It builds nothing: every part is handed in."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from crack_md.errors import DataError
from crack_md.training.config import RunConfig
from crack_md.training.crmse.contrast import ChainContrast
from crack_md.training.data.feed import BatchSource, seed_step
from crack_md.training.data.frames import Batch, Frames
from crack_md.training.evaluation import Evaluation, evaluate
from crack_md.training.loop.monitor import Clock, RunMonitor, Throughput
from crack_md.training.loop.objective import Objective
from crack_md.training.loop.optim import MovingAverage, WarmupCosine
from crack_md.training.loop.run import RunFolder
from crack_md.training.losses import Counts


@dataclass(frozen=True)
class TrainingSummary:
    """How a run ended."""

    step: int
    elapsed_s: float
    stopped_by: str | None
    """Name of the signal that ended the run early."""
    validation: Evaluation | None
    throughput: Throughput | None
    """Of all starts of the run together; None before the first step."""


class Gradient:
    """Leaves the gradient of the mean loss of a batch with the parameters.

    Args:
        fabric: The processes, which average their gradients.
        model: The objective as Fabric has set it up.
        objective: The same, bare.
        clock: Is told when losses and gradients are done.
        seed: Of the run; what a loss draws depends on it and the step alone.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        objective: Objective,
        *,
        clock: Clock,
        seed: int,
    ) -> None:
        self._fabric, self._model, self._objective = fabric, model, objective
        self._clock, self._seed = clock, seed

    def __call__(self, parts: list[Batch], step: int) -> dict[str, Tensor]:
        """Return the losses of this process by name, without gradient.

        They average over processes to those of the whole batch.
        """
        counts = self._count_items(parts) if len(parts) > 1 else None
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(parts, start=1):
            # for every part anew: draws do not depend on how many there are
            seed_step(self._seed, step, self._fabric.device)
            waits = number < len(parts)
            with self._fabric.no_backward_sync(self._model, enabled=waits):  # type: ignore[arg-type]
                report = self._model(batch, counts)
                self._clock.lap("loss")
                self._fabric.backward(report.total)
                self._clock.lap("update")
            for name, value in ({"loss": report.total.detach()} | report.parts).items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _count_items(self, parts: list[Batch]) -> Counts:
        """Return over how many items of the batch each term averages, per process."""
        own = [self._objective.count_items(batch) for batch in parts]
        sums = {name: sum(counts[name] for counts in own) for name in own[0]}
        return self._fabric.all_reduce(sums, reduce_op="mean")  # type: ignore[return-value]


MAX_SKIPPED = 20
"""Consecutive steps without finite gradients after which a run has diverged."""


class Trainer:
    """Train an objective on frames; resume where the run folder left off.

    Args:
        fabric: Device, processes and precision.
        objective: Student, head and losses.
        optimizer: Over the objective's parameters.
        schedule: Learning rate, and when the budget is spent.
        average: Moving average of the objective's parameters.
        feed: Batches to train on.
        validation: What to validate on, if anything.
        folder: Where metrics and checkpoints go.
        config: Intervals and seed.
        clip_norm: Largest norm of the gradient.
        watch: Progress bar and signals.
        contrast: Chains, where a loss contrasts the data with them.
    """

    def __init__(
        self,
        *,
        fabric: Fabric,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: WarmupCosine,
        average: MovingAverage,
        feed: BatchSource,
        validation: Frames | None,
        folder: RunFolder,
        config: RunConfig,
        clip_norm: float,
        watch: RunMonitor,
        contrast: ChainContrast | None = None,
    ) -> None:
        self.fabric = fabric
        self.objective = objective
        self.schedule = schedule
        self.average = average
        self.feed = feed
        self.validation = validation
        self.folder = folder
        self.config = config
        self.clip_norm = clip_norm
        self.watch = watch
        self.contrast = contrast
        self.clock = Clock(fabric.device, every=config.log_every)
        self.clock.follow(objective.student)
        self.step = 0
        self.n_skipped = 0
        self._spent_s = 0.0  # before this start of the program
        self._started = self._saved = time.monotonic()
        self.model, self.optimizer = fabric.setup(objective, optimizer)
        self.gradient = Gradient(
            fabric, self.model, objective, clock=self.clock, seed=config.seed
        )

    def fit(self) -> TrainingSummary:
        """Train until the budget is spent or someone asks to stop."""
        self._started = time.monotonic()
        self.resume()
        self.model.train()
        evaluation = None
        with self.watch.watching():
            while (rate := self._next_rate()) is not None:
                losses = self._train_step(rate)
                if self.step % self.config.log_every == 0:
                    self._log(losses)
                if self.step % self.config.validate_every == 0:
                    evaluation = self.validate()
                if self._checkpoint_is_due():
                    self.save()
            self.save()
            stopped_by = self.fabric.broadcast(self.watch.stop_requested)
            if stopped_by is None and (
                evaluation is None or self.step % self.config.validate_every
            ):
                evaluation = self.validate()
        throughput = self._report_throughput()
        return TrainingSummary(
            self.step, self.elapsed_s, stopped_by, evaluation, throughput
        )

    @property
    def elapsed_s(self) -> float:
        """Return the time this run has taken, all its starts together."""
        return self._spent_s + time.monotonic() - self._started

    def _next_rate(self) -> float | None:
        """Return the learning rate of the next step, None where there is none."""
        elapsed = self.elapsed_s
        spent = self.schedule.progress(self.step, elapsed) >= 1
        ends = spent or self.watch.stop_requested is not None
        rate = None if ends else self.schedule.learning_rate(self.step, elapsed)
        agreed: float | None = self.fabric.broadcast(rate)  # rank zero's clock decides
        return agreed

    def _train_step(self, rate: float) -> dict[str, Tensor]:
        """Take a step, and return its losses as this process sees them."""
        self.clock.start(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.feed(self.step, self.clock)
        parts = batch.parts
        if self.contrast is not None:
            with self.clock.sole("chains"):
                parts = [self.contrast.joined(part) for part in parts]
        self.optimizer.zero_grad(set_to_none=True)
        losses = self.gradient(parts, self.step)
        norm = self.fabric.clip_gradients(
            self.model,
            self.optimizer,
            max_norm=self.clip_norm,
            error_if_nonfinite=False,
        )
        assert norm is not None, "clipping by norm returns the norm"
        self._update(norm)
        self.clock.lap("update")
        self.clock.stop(batch.n_structures)
        self.step += 1
        return losses | {"gradient_norm": norm}

    def _update(self, norm: Tensor) -> None:
        if bool(norm.isfinite()):
            self.optimizer.step()
            self.average.update()
            self.n_skipped = 0
            return
        self.n_skipped += 1
        if self.n_skipped >= MAX_SKIPPED:
            raise DataError(
                f"training diverged: {MAX_SKIPPED} steps in a row up to step "
                f"{self.step} had no finite gradient; lower optimizer.lr or "
                "optimizer.clip_norm, or look for broken labels in the dataset"
            )

    def validate(self) -> Evaluation | None:
        """Return the errors of the averaged weights on the validation frames."""
        if self.validation is None or not self.fabric.is_global_zero:
            return None
        with self.average.applied():
            evaluation = evaluate(
                self.objective.student,
                self.validation,
                head=self.objective.head,
                device=self.fabric.device,
            )
            watched = (
                {}
                if self.contrast is None
                else self.contrast.watch(
                    self.objective, self.feed.frames, self.validation
                )
            )
        values = {f"val_{k}": v for k, v in evaluation.all.as_dict().items()}
        self._record(values | watched)
        self.watch.say(
            f"step {self.step}: validation "
            f"{evaluation.all.force_mae_meV_per_A:.1f} meV/Å, "
            f"{evaluation.all.energy_mae_meV_per_atom:.2f} meV/atom"
        )
        return evaluation

    def _log(self, losses: dict[str, Tensor]) -> None:
        means: Tensor = self.fabric.all_reduce(  # type: ignore[assignment]
            torch.stack(list(losses.values())), reduce_op="mean"
        )
        values = dict(zip(losses, means.tolist(), strict=True))
        rate = self.optimizer.param_groups[0]["lr"]
        step_s = self.clock.last_step_s
        values |= {"lr": rate, "skipped": self.n_skipped, "step_s": step_s}
        if self.contrast is not None:
            values |= self.contrast.report(self.objective)
        self._record(values)
        self.watch.update(
            self.schedule.progress(self.step, self.elapsed_s),
            f"step {self.step}  loss {values['loss']:.3f}",
        )

    def _report_throughput(self) -> Throughput | None:
        throughput = self.clock.throughput()
        if throughput is not None and self.clock.last_step_s:  # steps of this start
            self._record(throughput.as_dict())
            self.watch.say(f"{self.step} steps in {self.elapsed_s:.0f} s: {throughput}")
        return throughput

    def _record(self, values: dict[str, Any]) -> None:
        self.folder.log({"step": self.step, "elapsed_s": self.elapsed_s, **values})

    def _checkpoint_is_due(self) -> bool:
        by_time = time.monotonic() - self._saved > self.config.checkpoint_every_s
        return by_time or self.step % self.config.checkpoint_every == 0

    def save(self) -> None:
        """Write everything that a later start needs to continue bit for bit.

        No random state: every step seeds itself, on however many processes.
        """
        self._saved = time.monotonic()
        self.folder.save_checkpoint(
            {
                "step": self.step,
                "elapsed_s": self.elapsed_s,
                "n_skipped": self.n_skipped,
                "objective": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict(),
                "clock": self.clock.state_dict(),
                "contrast": self.contrast and self.contrast.state_dict(self.objective),
            }
        )

    def resume(self) -> None:
        """Take up the checkpoint of the run folder, if there is one."""
        state: dict[str, Any] | None = self.folder.load_checkpoint()
        if state is None:  # what a run logged before its first checkpoint comes again
            self.folder.forget_after(-1)
            return
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.clock.load_state_dict(state.get("clock", {}))
        if self.contrast is not None:
            self.contrast.load_state_dict(state["contrast"], self.objective)
        self.step, self.n_skipped = state["step"], state["n_skipped"]
        self._spent_s, self._started = state["elapsed_s"], time.monotonic()
        self.folder.forget_after(self.step)
        self.watch.say(f"resuming {self.folder.path} at step {self.step}")
