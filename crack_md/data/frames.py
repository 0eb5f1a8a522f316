"""`crack-md augment`: base structures in, a file of frames out."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from crack_md.data.augment.generate import BaseStructure, generate, plan_of
from crack_md.data.augment.lattice import teacher_lattice_constants
from crack_md.data.augment.make import make_frames
from crack_md.data.augment.variants import Variants
from crack_md.data.dataset import group_of
from crack_md.data.parallel import map_in_order
from crack_md.data.readers import contents_of, read_structures
from crack_md.data.recipes import Recipe
from crack_md.data.writer import CONTENTS, RowWriter
from crack_md.errors import ConfigError, TeacherError
from crack_md.models.teachers import Teacher, load_teacher

CHUNK = 8
"""Base structures per write; a kill loses at most these."""

_teacher: Teacher | None = None
"""The teacher of this worker process."""


@dataclass(frozen=True)
class Job:
    """One base structure and what to make of it."""

    number: int
    base: BaseStructure
    variants: Variants
    seed: int
    largest_force: float


def write_frames(
    recipe: Recipe,
    out: Path,
    *,
    sources: Iterable[Path] = (),
    teacher: str | None = None,
    workers: int = 1,
    limit: int | None = None,
    overwrite: bool = False,
    report: Callable[[int, int], None] = lambda done, frames: None,
) -> int:
    """Write all frames of a recipe to a file; return how many.

    Args:
        recipe: What to generate, and which frames to make of each structure.
        out: `.aselmdb`, `.db` or `.extxyz`.
        sources: Files and folders with structures, besides generated ones.
        teacher: As `load_teacher` takes it; needed for relaxed and thermal frames.
        workers: Processes, each with a teacher of its own.
        limit: Stop after this many base structures.
        overwrite: Replace an existing file.
        report: Called with (base structures done, frames written).
    """
    sources = [Path(source) for source in sources]
    if not recipe.all_parts() and not sources:
        raise ConfigError(
            "nothing to augment: give structure files, or a recipe with 'generate' or "
            "'parts'"
        )
    served = None if teacher is None else load_teacher(teacher)
    lattice_constants = _lattice_constants(recipe, served)
    job = {
        "recipe": recipe.model_dump(mode="json"),
        "sources": [str(source) for source in sources],
        CONTENTS: contents_of(sources),
        "teacher_sha256": served.sha256 if served else None,
        "limit": limit,
    }
    writer = RowWriter(out, job=job, overwrite=overwrite)
    bases = _bases(recipe, sources, lattice_constants, limit)
    total, written = writer.done, writer.n_rows
    results = map_in_order(
        _frames_of,
        islice(_jobs(recipe, bases), writer.done, None),
        workers=workers,
        start=partial(_start, teacher),
    )
    while chunk := list(islice(results, CHUNK)):
        rows = [row for frames in chunk for row in frames]
        total += len(chunk)
        written += len(rows)
        writer.append(rows, done=total)
        report(total, written)
    metadata: dict[str, Any] = {**job, "lattice_constants": lattice_constants}
    if served:
        metadata["teacher"] = served.name
    writer.finish(metadata)
    return written


def count_bases(recipe: Recipe, *, limit: int | None = None) -> int | None:
    """Return how many structures a recipe generates; None if it reads files."""
    if not recipe.all_parts():
        return limit
    count = len(plan_of(recipe))
    return count if limit is None else min(count, limit)


def _lattice_constants(recipe: Recipe, teacher: Teacher | None) -> dict[str, float]:
    given = dict(recipe.lattice_constants)
    missing = tuple(symbol for symbol in recipe.metals() if symbol not in given)
    if not missing:
        return given
    if teacher is None:
        raise TeacherError(
            f"lattice constants of {', '.join(missing)} come from the teacher; pass "
            "--teacher, or give lattice_constants in the recipe"
        )
    return given | teacher_lattice_constants(missing, teacher)


def _bases(
    recipe: Recipe,
    sources: list[Path],
    lattice_constants: dict[str, float],
    limit: int | None,
) -> Iterator[BaseStructure]:
    def everything() -> Iterator[BaseStructure]:
        for number, atoms in enumerate(read_structures(sources) if sources else ()):
            yield BaseStructure(atoms, group_of(atoms, number), "given", "unknown")
        yield from generate(recipe, lattice_constants=lattice_constants)

    return islice(everything(), limit)


def _jobs(recipe: Recipe, bases: Iterator[BaseStructure]) -> Iterator[Job]:
    parts = recipe.all_parts()
    for number, base in enumerate(bases):
        part = parts.get(base.part, recipe)  # structures from files have none
        variants = part.variants if base.is_slab else part.bulk_variants
        chosen = variants or recipe.variants
        yield Job(number, base, chosen, recipe.seed, recipe.largest_force)


def _start(spec: str | None) -> None:
    global _teacher
    _teacher = None if spec is None else load_teacher(spec)


def _frames_of(job: Job) -> list[Atoms]:
    random = np.random.default_rng([job.seed, job.number, 1])
    if job.base.surface == "dimer":
        frames = [job.base.atoms]
        frames[0].info["kind"] = "dimer"
    else:
        frames = make_frames(
            job.base.atoms, job.variants, teacher=_teacher, random=random
        )
    kept = []
    for frame in frames:
        forces = frame.info.get("teacher_forces")
        if forces is not None and np.abs(forces).max() > job.largest_force:
            continue
        frame.info |= {
            "group": job.base.group,
            "surface": job.base.surface,
            "adsorbate": job.base.adsorbate,
        }
        kept.append(frame)
    return kept
