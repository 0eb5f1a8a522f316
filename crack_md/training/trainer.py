"""The training loop. It builds nothing: every part is handed in."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from crack_md.data.batches import Batch
from crack_md.errors import DataError
from crack_md.training.config import RunConfig
from crack_md.training.evaluate import Evaluation, evaluate
from crack_md.training.frames import Frames, draw
from crack_md.training.objective import Objective
from crack_md.training.optim import MovingAverage, WarmupCosine
from crack_md.training.progress import Watch
from crack_md.training.run import RunFolder

MAX_SKIPPED = 20
"""Consecutive steps without finite gradients after which a run has diverged."""


@dataclass(frozen=True)
class TrainingSummary:
    """How a run ended."""

    step: int
    elapsed_s: float
    stopped_by: str | None
    """Name of the signal that ended the run early."""
    validation: Evaluation | None


class Trainer:
    """Train an objective on frames; resume where the run folder left off.

    Args:
        fabric: Device, processes and precision.
        objective: Student, head and losses.
        optimizer: Over the objective's parameters.
        schedule: Learning rate, and when the budget is spent.
        average: Moving average of the objective's parameters.
        frames: What to train on.
        validation: What to validate on, if anything.
        folder: Where metrics and checkpoints go.
        config: Batch size, intervals, seed.
        clip_norm: Largest norm of the gradient.
        watch: Progress bar and signals.
    """

    def __init__(
        self,
        *,
        fabric: Fabric,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        schedule: WarmupCosine,
        average: MovingAverage,
        frames: Frames,
        validation: Frames | None,
        folder: RunFolder,
        config: RunConfig,
        clip_norm: float,
        watch: Watch,
    ) -> None:
        self.fabric = fabric
        self.objective = objective
        self.schedule = schedule
        self.average = average
        self.frames = frames
        self.validation = validation
        self.folder = folder
        self.config = config
        self.clip_norm = clip_norm
        self.watch = watch
        self.step = 0
        self.n_skipped = 0
        self._spent_s = 0.0  # before this start of the program
        self._started = self._saved = time.monotonic()
        self.model, self.optimizer = fabric.setup(objective, optimizer)

    def fit(self) -> TrainingSummary:
        """Train until the budget is spent or someone asks to stop."""
        self._started = time.monotonic()
        self.resume()
        evaluation = None
        with self.watch.watching():
            while not self._ends():
                values = self._train_step()
                if self.step % self.config.log_every == 0:
                    self._log(values)
                if self.step % self.config.validate_every == 0:
                    evaluation = self.validate()
                if self._checkpoint_is_due():
                    self.save()
            self.save()
            stopped_by = self.watch.stop_requested
            if stopped_by is None and (
                evaluation is None or self.step % self.config.validate_every
            ):
                evaluation = self.validate()
        return TrainingSummary(self.step, self.elapsed_s, stopped_by, evaluation)

    @property
    def elapsed_s(self) -> float:
        """Return the time this run has taken, all its starts together."""
        return self._spent_s + time.monotonic() - self._started

    def _ends(self) -> bool:
        spent = self.schedule.progress(self.step, self.elapsed_s) >= 1
        stop = spent or self.watch.stop_requested is not None
        return bool(self.fabric.broadcast(stop))  # rank zero's clock decides

    def _train_step(self) -> dict[str, float]:
        started = time.monotonic()
        rate = self.schedule.learning_rate(self.step, self.elapsed_s)
        rate = self.fabric.broadcast(rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        values = self._backward()
        norm = self.fabric.clip_gradients(
            self.model,
            self.optimizer,
            max_norm=self.clip_norm,
            error_if_nonfinite=False,
        )
        assert norm is not None, "clipping by norm returns the norm"
        self._update(norm)
        self.step += 1
        values |= {"lr": rate, "gradient_norm": norm.item(), "skipped": self.n_skipped}
        return values | {"step_s": time.monotonic() - started}

    def _backward(self) -> dict[str, float]:
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._batches()
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(parts, start=1):
            waits = number < len(parts)
            with self.fabric.no_backward_sync(self.model, enabled=waits):
                report = self.model(batch)
                self.fabric.backward(report.total / len(parts))
            for name, value in ({"loss": report.total.detach()} | report.parts).items():
                sums[name] = sums.get(name, 0.0) + value / len(parts)
        means: Tensor = self.fabric.all_reduce(  # type: ignore[assignment]
            torch.stack(list(sums.values())), reduce_op="mean"
        )
        return dict(zip(sums, means.tolist(), strict=True))

    def _batches(self) -> list[Batch]:
        """Return this process's parts of the batch of the present step."""
        drawn = draw(
            self.step,
            n_frames=len(self.frames),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
        )
        own = drawn[self.fabric.global_rank :: self.fabric.world_size]
        return [
            self.frames.batch(part, device=self.fabric.device)
            for part in own.chunk(self.config.accumulate)
        ]

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
        record = {f"val_{k}": v for k, v in evaluation.all.as_dict().items()}
        self.folder.log({"step": self.step, "elapsed_s": self.elapsed_s, **record})
        self.watch.say(
            f"step {self.step}: validation "
            f"{evaluation.all.force_mae_meV_per_A:.1f} meV/Å, "
            f"{evaluation.all.energy_mae_meV_per_atom:.2f} meV/atom"
        )
        return evaluation

    def _log(self, values: dict[str, float]) -> None:
        elapsed = self.elapsed_s
        self.folder.log({"step": self.step, "elapsed_s": elapsed, **values})
        self.watch.update(
            self.schedule.progress(self.step, elapsed),
            f"step {self.step}  loss {values['loss']:.3f}",
        )

    def _checkpoint_is_due(self) -> bool:
        by_time = time.monotonic() - self._saved > self.config.checkpoint_every_s
        return by_time or self.step % self.config.checkpoint_every == 0

    def save(self) -> None:
        """Write everything that a later start needs to continue bit for bit."""
        self._saved = time.monotonic()
        self.folder.save_checkpoint(
            {
                "step": self.step,
                "elapsed_s": self.elapsed_s,
                "n_skipped": self.n_skipped,
                "objective": self.objective.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "average": self.average.state_dict(),
                "random_state": torch.get_rng_state(),
            }
        )

    def resume(self) -> None:
        """Take up the checkpoint of the run folder, if there is one."""
        state: dict[str, Any] | None = self.folder.load_checkpoint()
        if state is None:
            return
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        torch.set_rng_state(state["random_state"])
        self.step, self.n_skipped = state["step"], state["n_skipped"]
        self._spent_s, self._started = state["elapsed_s"], time.monotonic()
        self.folder.forget_after(self.step)
        self.watch.say(f"resuming {self.folder.path} at step {self.step}")
