"""Time training steps with and without compiled code, in turns.

    crack-md label data/orr_round_2 --only-features --out data/orr_round_2.aselmdb \
        --teacher tensornet:teachers/TensorNet-MatPES-PBE-v2025.1-PES
    python benchmarks/compiled_step.py configs/student_orr_1.yaml \
        --set data.path=data/orr_round_2.aselmdb --set data.replay=[]

The student alone is its outputs and the slopes of its weights for some loss of all of
them. A whole step is one of the trainer, with losses, optimizer, moving average and
the drawing of frames: the difference of a long and a short run, over the steps between
them. Times are CPU seconds of one thread.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch

from crack_md.errors import CrackError
from crack_md.graph import AtomGraph
from crack_md.models.force_field import Prediction
from crack_md.training.config import TrainConfig, load_config
from crack_md.training.data.source import read_training_data
from crack_md.training.loop.build import build_frames
from crack_md.training.loop.compiled import CompiledStudent
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import start_student, train

CALLS, SHORT, LONG = 20, 5, 65
Answers = Callable[[AtomGraph], Prediction]


def cpu_s(work: Callable[[], object]) -> float:
    """Return CPU seconds of some work."""
    begin = time.process_time()
    work()
    return time.process_time() - begin


def told(name: str, rounds: Sequence[tuple[float, float]]) -> str:
    """Return a line about rounds of (uncompiled, compiled) seconds."""
    plain, compiled = (1e3 * median(times) for times in zip(*rounds, strict=True))
    ratios = sorted(one / other for one, other in rounds)
    return (
        f"{name}: {plain:.1f} ms uncompiled, {compiled:.1f} ms compiled: "
        f"{median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) times"
    )


def time_student(config: TrainConfig, folder: Path, n_rounds: int) -> str:
    """Return how long a student takes for its outputs and slopes."""
    data = read_training_data(config)
    student = start_student(config, data, RunFolder(folder)).train()
    frames = build_frames(data.train, student)
    graph = frames.batch(torch.arange(config.run.batch_size or 1)).graph
    weights = list(student.parameters())

    def call(answer: Answers) -> None:
        found = answer(graph)
        loss = found.energy.sum() + found.forces.square().sum()
        loss = loss + found.node_features.square().sum()
        torch.autograd.grad(loss, weights, allow_unused=True)

    def calls(answer: Answers) -> float:
        return cpu_s(lambda: [call(answer) for _ in range(CALLS)]) / CALLS

    compiled = CompiledStudent(student)
    call(compiled)
    if compiled.code is None:
        raise SystemExit("error: there is no compiled code to time")
    call(student)
    rounds = [(calls(student), calls(compiled)) for _ in range(n_rounds)]
    edges = int(graph.mask.sum())
    return told(f"student alone, {graph.n_atoms} atoms, {edges:,} edges", rounds)


def time_steps(config: TrainConfig, folder: Path, n_rounds: int) -> str:
    """Return how long a step of the trainer takes."""

    def run_s(n_steps: int, *, compiles: bool) -> float:
        shutil.rmtree(folder, ignore_errors=True)
        run = config.run.model_copy(
            update={
                "folder": folder,
                "max_steps": n_steps,
                "compile": compiles,
                "validate_every": LONG,
            }
        )
        changed = config.model_copy(update={"run": run})
        return cpu_s(lambda: train(changed, quiet=True))

    def step_s(*, compiles: bool) -> float:
        times = [run_s(n_steps, compiles=compiles) for n_steps in (LONG, SHORT)]
        return (times[0] - times[1]) / (LONG - SHORT)

    rounds = [(step_s(compiles=False), step_s(compiles=True)) for _ in range(n_rounds)]
    return told("a whole step", rounds)


def main() -> None:
    """Time the student alone, then whole steps."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipe", type=Path, help="of a training run")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    try:
        config = load_config(options.recipe, [*options.set, "run.accelerator=cpu"])
        with tempfile.TemporaryDirectory() as base:
            print(time_student(config, Path(base), options.rounds))
            print(time_steps(config, Path(base) / "run", options.rounds))
    except CrackError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
