"""The training of a round: the recipe, with the data and the budget of the round."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from crack_md.data.dataset import LabelledStructure
from crack_md.files import write_atomically
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ForceField
from crack_md.training.config import TrainConfig, assign, check_config, read_tree
from crack_md.training.data.source import TrainingData, read_training_data, usable
from crack_md.training.evaluation import evaluate, known_frames, measure_domain
from crack_md.training.loop.build import build_frames
from crack_md.training.loop.train import train
from crack_md.training.on_policy.config import LoopConfig
from crack_md.training.on_policy.folder import Loop, LoopFolder, RoundFolder, Stopwatch


def training_config(
    config: LoopConfig,
    folder: LoopFolder,
    *,
    number: int,
    member: int,
    replay: Sequence[tuple[Path, int]],
) -> TrainConfig:
    """Return the recipe as one student of a round is trained by it.

    Args:
        config: The loop.
        folder: Of the loop.
        number: Of the round.
        member: Of the committee; 0 is the student that explores.
        replay: Labelled sets of the rounds before, and how often they count.

    Raises:
        ConfigError: The recipe cannot be read, or is none.
    """
    tree = read_tree(config.student)
    for assignment in config.train.overrides:
        assign(tree, assignment)
    seed = config.seed + member
    later = number > 0
    steps = config.train.later_steps if later else config.train.steps
    _set(tree, "data", path=str(config.data), replay=_replay(replay))
    _set(
        tree,
        "run",
        folder=str(folder.round(number).member(seed)),
        seed=seed,
        max_steps=steps,
        max_seconds=None,
    )
    if later:
        before = folder.round(number - 1).member(seed) / "student.pt"
        _set(tree, "student", init_from=str(before), init_parts=None)
    source = f"{config.student}, round {number}"
    checked = check_config(tree, source=source)
    if later:
        lr = checked.optimizer.lr * config.train.later_lr_factor
        _set(tree, "optimizer", lr=lr)
        checked = check_config(tree, source=source)
    return checked


def train_round(
    loop: Loop, number: int, *, replay: Sequence[tuple[Path, int]]
) -> str | None:
    """Train the students of a round and measure the first; return what stopped it."""
    config, here = loop.config, loop.folder.round(number)
    read = partial(read_training_data, read=loop.read)
    recipes = [
        training_config(config, loop.folder, number=number, member=one, replay=replay)
        for one in range(config.train.committee)
    ]
    with Stopwatch(here, "train") as watch:
        for member, recipe in enumerate(recipes):
            if (recipe.run.folder / "student.pt").exists():
                continue
            if number == 0 and config.train.first:
                _take(config.train.first[member], recipe.run.folder)
                continue
            summary = train(recipe, quiet=loop.quiet, read=read)
            if summary.stopped_by is not None:
                return summary.stopped_by
        numbers = _measured(loop, here, recipes[0], read(recipes[0]), replay)
        if number == 0 and config.train.first:
            numbers["steps"] = 0
        numbers["seconds"] = round(watch.seconds, 1)
    here.write("train", numbers)
    return None


def _take(student: Path, folder: Path) -> None:
    """Copy a student that was trained before, with its head, into a run folder.

    Raises:
        CheckpointError: It is no model.
    """
    load_model(student)
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (
        ("feature_head.pt", student.with_name("feature_head.pt")),
        ("student.pt", student),
    ):
        if source.exists():
            write_atomically(folder / name, source.read_bytes())


def _measured(
    loop: Loop,
    here: RoundFolder,
    recipe: TrainConfig,
    data: TrainingData,
    replay: Sequence[tuple[Path, int]],
) -> dict[str, Any]:
    """Save the student of a round; return its errors and what it had."""
    student = load_model(recipe.run.folder / "student.pt")
    here.path.mkdir(parents=True, exist_ok=True)
    save_model(_with_domain(student, data), here.student)
    limit = loop.config.evaluate_frames
    held_out = usable(loop.base.select("test"), recipe.data)
    repeats = replay[0][1] if replay else None
    n_new = sum(
        len(usable(loop.read(path).structures, recipe.data)) for path, _ in replay
    )
    return {
        "n_train": len(data.train) - n_new * ((repeats or 1) - 1),
        "n_new": n_new,
        "n_repeats": repeats,
        "steps": recipe.run.max_steps,
        "validation": errors_on(student, data.validation, limit),
        "held_out": errors_on(student, held_out, limit),
    }


def errors_on(
    student: ForceField,
    frames: Sequence[LabelledStructure],
    limit: int | None = None,
) -> dict[str, Any] | None:
    """Return the errors against the labels, None where there are no frames.

    Args:
        student: On the CPU.
        frames: Those with elements unknown to the student are left out.
        limit: Measure on so many of them, evenly spaced.
    """
    known = known_frames(student, frames)
    chosen = evenly(known, limit)
    if not chosen:
        return None
    found = evaluate(student, build_frames(chosen, student))
    return found.all.as_dict()


def evenly(
    frames: Sequence[LabelledStructure], limit: int | None
) -> Sequence[LabelledStructure]:
    """Return so many frames, evenly spaced; all of them if there are no more."""
    if limit is None or len(frames) <= limit:
        return frames
    return [frames[place * len(frames) // limit] for place in range(limit)]


def _with_domain(student: ForceField, data: TrainingData) -> ForceField:
    """Return a student that can tell how far a frame is from its training data.

    Trained ones can; those that a loop begins with may be older.
    """
    if student.metadata.feature_statistics is not None:
        return student
    domain = measure_domain(student, build_frames(data.train, student))
    metadata = replace(student.metadata, feature_statistics=domain)
    return ForceField(student.network, student.scale, metadata)


def _replay(sets: Sequence[tuple[Path, int]]) -> list[dict[str, Any]]:
    return [{"path": str(path), "repeats": repeats} for path, repeats in sets]


def _set(tree: dict[str, Any], section: str, **values: Any) -> None:
    tree[section] = {**tree.get(section, {}), **values}
