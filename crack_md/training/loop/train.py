"""One whole run: read, build, train, export."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from crack_md.data.dataset import LabelledStructure
from crack_md.data.parallel import first_rank_first
from crack_md.files import atomic_path
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import ForceField
from crack_md.models.precision import use_bfloat16
from crack_md.progress import show_progress
from crack_md.training.config import TrainConfig
from crack_md.training.data.frames import Frames
from crack_md.training.data.source import TrainingData, read_training_data
from crack_md.training.evaluation import Evaluation, measure_domain
from crack_md.training.loop.build import (
    build_contrast,
    build_feed,
    build_frames,
    build_objective,
    build_student,
)
from crack_md.training.loop.heads import heads_state
from crack_md.training.loop.monitor import RunMonitor
from crack_md.training.loop.objective import Objective
from crack_md.training.loop.optim import MovingAverage, WarmupCosine, build_optimizer
from crack_md.training.loop.parallel import FabricRanks, launched_fabric
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.trainer import Trainer, TrainingSummary

ReadData = Callable[[TrainConfig], TrainingData]
PackFrames = Callable[[Sequence[LabelledStructure], ForceField], Frames]

PATHS = frozenset({"path", "store", "validation", "init_from", "folder", "spec"})
"""Settings that name files."""


def train(
    config: TrainConfig,
    *,
    quiet: bool = False,
    read: ReadData = read_training_data,
    pack: PackFrames = build_frames,
) -> TrainingSummary:
    """Train as the configuration says, and write ``student.pt`` when the run has ended.

    Called again with the same configuration it continues where it was interrupted. The
    global random state of the caller is left as it was.

    Args:
        config: The run.
        quiet: Print nothing.
        read: Returns the data of a configuration; many runs share one that remembers.
        pack: Builds the graphs of frames; likewise.
    """
    with launched_fabric(config.run) as fabric, _own_random_state(fabric):
        shows = fabric.is_global_zero and not quiet
        watch = RunMonitor(shows=shows)
        torch.manual_seed(config.run.seed)
        folder = RunFolder(config.run.folder, writes=fabric.is_global_zero)
        folder.check(config)
        with show_progress("reading frames", None, quiet=not shows):
            data = read(config)
        folder.open(config)
        config = _with_usable_precision(config, fabric)
        with closing(folder):
            with show_progress("building graphs", None, quiet=not shows):
                trainer = build_trainer(
                    config, data, fabric=fabric, folder=folder, watch=watch, pack=pack
                )
            watch.say(_start_line(config, trainer, data.n_left_out))
            summary = trainer.fit()
            if summary.stopped_by is None and fabric.is_global_zero:
                export(trainer, config, data, summary.validation)
    return summary


def _with_usable_precision(config: TrainConfig, fabric: Fabric) -> TrainConfig:
    """Return the configuration in float32 where bfloat16 would only be slower.

    The run folder keeps what was asked for: the run may go on on another machine.
    """
    usable = config.run.precision != "bfloat16" or use_bfloat16(fabric.device)
    if fabric.broadcast(usable):  # the same for all, whatever processors they are
        return config
    run = config.run.model_copy(update={"precision": "float32"})
    return config.model_copy(update={"run": run})


def _own_random_state(fabric: Fabric) -> AbstractContextManager[None]:
    own = [fabric.device] if fabric.device.type == "cuda" else []
    return torch.random.fork_rng(own)


def build_trainer(
    config: TrainConfig,
    data: TrainingData,
    *,
    fabric: Fabric,
    folder: RunFolder,
    watch: RunMonitor,
    pack: PackFrames = build_frames,
) -> Trainer:
    """Return the trainer of a configuration, nothing trained yet."""
    options = config.optimizer
    student = start_student(config, data, folder)
    frames = pack(data.train, student)
    validation = pack(data.validation, student) if data.validation else None
    objective = build_objective(
        config,
        student,
        frames,
        ranks=FabricRanks(fabric),
        sample=pack(data.sample, student) if data.sample else None,
    )
    objective.to(fabric.device)
    feed = build_feed(
        config,
        frames,
        rank=fabric.global_rank,
        n_ranks=fabric.world_size,
        device=fabric.device,
    )
    return Trainer(
        fabric=fabric,
        objective=objective,
        optimizer=build_optimizer(
            options.name,
            objective,
            lr=options.lr,
            weight_decay=options.weight_decay,
            n_elements=student.network.config.num_elements,
        ),
        schedule=WarmupCosine(
            lr=options.lr,
            warmup_steps=options.warmup_steps,
            lr_end_factor=options.lr_end_factor,
            max_steps=config.run.max_steps,
            max_seconds=config.run.max_seconds,
        ),
        average=MovingAverage(objective, options.ema_decay),
        feed=feed,
        validation=validation,
        folder=folder,
        config=config.run,
        clip_norm=options.clip_norm,
        watch=watch,
        contrast=build_contrast(config, student, data),
    )


def start_student(
    config: TrainConfig, data: TrainingData, folder: RunFolder
) -> ForceField:
    """Return the student before the first step, the same one whenever a run goes on.

    Its units, references and shortest distances take a pass over all frames: the first
    process of the first start computes them, and all others read what it has written.
    """
    with first_rank_first() as is_first:
        goes_on = folder.checkpoint_file.exists() and folder.start_file.exists()
        if not is_first or goes_on:
            return load_model(folder.start_file)
        student = build_student(config.student, data)
        save_model(student, folder.start_file, provenance={})
    return student


def export(
    trainer: Trainer,
    config: TrainConfig,
    data: TrainingData,
    validation: Evaluation | None,
) -> None:
    """Write the averaged student and, apart from it, the head P."""
    folder, objective = trainer.folder, trainer.objective
    student, device = objective.student, trainer.fabric.device
    with trainer.average.applied():
        domain = measure_domain(student, trainer.feed.frames, device=device)
        metadata = replace(student.metadata, feature_statistics=domain)
        save_model(
            ForceField(student.network, student.scale, metadata),
            folder.student_file,
            provenance=provenance(config, data, trainer, validation),
        )
        if objective.head is not None:
            save_head(objective, folder)
    trainer.watch.say(f"wrote {folder.student_file}")


def save_head(objective: Objective, folder: RunFolder) -> None:
    """Write P, which ``crack-md evaluate`` needs for embedding metrics."""
    state = heads_state(objective.heads)
    with atomic_path(folder.head_file) as temporary:
        torch.save(state, temporary)


def provenance(
    config: TrainConfig,
    data: TrainingData,
    trainer: Trainer,
    validation: Evaluation | None,
) -> dict[str, Any]:
    """Return where a student comes from, in plain containers."""
    origin = data.dataset.metadata
    dumped = without_folders(config.model_dump(mode="json"))
    return {
        **teachers_of(origin),
        "data": {
            "path": config.data.path.name,
            "fingerprint": origin.get("fingerprint", ""),
            "n_train": len(data.train),
            "n_validation": len(data.validation),
        },
        "losses": dumped["losses"],
        "config": dumped,
        "training": _training(trainer),
        "metrics": {} if validation is None else validation.as_dict(),
        "citation": config.card.citation,
        "licence": config.card.licence,
    }


def teachers_of(told: Mapping[str, Any]) -> dict[str, str]:
    """Return who made the labels of a dataset, and its features if that is another.

    Args:
        told: Metadata of the dataset.
    """
    teacher = told.get("teacher", "none")
    labels_by = told.get("labels_by", teacher)
    return {
        "teacher": labels_by,
        "teacher_sha256": told.get("labels_by_sha256", told.get("teacher_sha256", "")),
        **({} if labels_by == teacher else {"features_by": teacher}),
    }


def without_folders(tree: Any) -> Any:
    """Return a configuration with file names in the place of paths.

    A student is passed on; paths on the machine that trained it are of no use there.
    """
    if isinstance(tree, dict):
        return {
            key: _name(value)
            if key in PATHS and isinstance(value, str)
            else without_folders(value)
            for key, value in tree.items()
        }
    return [without_folders(item) for item in tree] if isinstance(tree, list) else tree


def _name(path: str) -> str:
    kind, colon, rest = path.rpartition(":")  # a teacher may be nequix:PATH
    return kind + colon + Path(rest).name


def _training(trainer: Trainer) -> dict[str, Any]:
    speed = trainer.clock.throughput()
    return {
        "steps": trainer.step,
        "elapsed_s": round(trainer.elapsed_s, 1),
        **({} if speed is None else speed.as_dict()),
    }


def _start_line(config: TrainConfig, trainer: Trainer, n_left_out: int) -> str:
    student = trainer.objective.student
    n_weights = sum(weight.numel() for weight in student.parameters())
    n_frames = len(trainer.feed.frames)
    n_validation = 0 if trainer.validation is None else len(trainer.validation)
    n_ranks = config.run.n_ranks
    where = "" if n_ranks == 1 else f" on {n_ranks} processes"
    left = f" ({n_left_out} left out as data.* asks)" if n_left_out else ""
    alone = "single atoms as labelled; " if student.scale.isolated_references else ""
    return (
        f"{n_weights:,} weights, {student.forces} forces; {n_frames} frames "
        f"to train on{where}{left}, {n_validation} to validate; {alone}results go to "
        f"{config.run.folder}"
    )
