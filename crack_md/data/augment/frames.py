"""`crack-md augment`: base structures in, a file of frames out.

Each frame is drawn from a generator that the caller seeds per structure. Frames that
the teacher visited while relaxing or running carry its labels in `info` already.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.optimize import LBFGS
from numpy.random import Generator
from numpy.typing import NDArray

from crack_md.data.augment.bases import (
    BaseStructure,
    generate,
    plan_of,
    teacher_lattice_constants,
)
from crack_md.data.augment.distort import (
    displaced,
    given,
    hot,
    open_directions,
    pressed,
    pulled,
    pushed,
    rattled,
    scaled,
    sheared,
    strained,
    stretched,
    with_vacancy,
)
from crack_md.data.augment.recipe import Recipe, Relax, Thermal, Variant, Variants
from crack_md.data.dataset import group_of, teacher_data
from crack_md.data.parallel import map_in_order
from crack_md.data.readers import contents_of, read_structures
from crack_md.data.writer import CONTENTS, RowWriter
from crack_md.errors import ConfigError, TeacherError
from crack_md.models.teachers import load_teacher
from crack_md.models.teachers.base import Teacher, TeacherCalculator, as_periodic

RUNAWAY = 50.0
"""eV/Å at which a relaxation or run is given up: the structure has collapsed."""


def relaxed(
    atoms: Atoms, section: Relax, *, teacher: Teacher, random: Generator
) -> Iterator[Atoms]:
    """Yield labelled frames along a relaxation, its last one included.

    Where the structure brings no constraints and has a vacuum along z, its lower part
    is fixed while it relaxes.
    """
    moving = _prepared(atoms, section.rattle, teacher, random)
    if not moving.constraints and open_directions(moving)[2]:
        height = moving.positions[:, 2]
        limit = height.min() + section.fixed_layers * np.ptp(_metal_heights(moving))
        moving.set_constraint(FixAtoms(mask=height <= limit + 1e-3))
    optimizer = LBFGS(moving, logfile=None, maxstep=0.15)  # type: ignore[arg-type]
    last = None
    for _ in optimizer.irun(fmax=section.fmax, steps=section.steps):
        frame = _snapshot(moving, atoms)
        if last is None or _largest_move(last, frame) > section.spacing:
            last = frame
            yield frame
        if _collapsed(moving):
            return
    if last is not frame:
        yield frame
    for _ in range(section.rattled_ends):
        amplitude = np.exp(
            random.uniform(np.log(0.01), np.log(section.largest_end_rattle))
        )
        end = displaced(frame, float(amplitude), random)
        end.info["kind"] = "rattled"
        yield end


def thermal(
    atoms: Atoms, section: Thermal, *, teacher: Teacher, random: Generator
) -> Iterator[Atoms]:
    """Yield labelled frames of a Langevin run at a temperature drawn in the range."""
    moving = _prepared(atoms, 0.03, teacher, random)
    moving.set_masses(np.full(len(moving), section.mass_u))
    temperature_K = float(random.uniform(section.coldest_K, section.hottest_K))
    width = np.sqrt(section.mass_u * units.kB * temperature_K)
    moving.set_momenta(random.normal(0, width, moving.positions.shape))
    dynamics = Langevin(
        moving,
        section.timestep_fs * units.fs,
        temperature_K=temperature_K,
        friction=section.friction_per_ps / (1000 * units.fs),
        fixcm=False,
        rng=random,
    )
    for _ in range(section.steps // section.every):
        dynamics.run(section.every)
        if _collapsed(moving):
            return
        yield _snapshot(moving, atoms)


def _prepared(
    atoms: Atoms, amplitude: float, teacher: Teacher, random: Generator
) -> Atoms:
    moving = as_periodic(displaced(atoms, amplitude, random))
    moving.set_constraint(atoms.constraints)
    moving.calc = TeacherCalculator(teacher)
    return moving


def _snapshot(moving: Atoms, origin: Atoms) -> Atoms:
    """Return the present frame, with the cell and constraints of where it came from."""
    frame = origin.copy()
    frame.positions = moving.positions.copy()
    moving.get_forces()  # labels of exactly these positions
    assert isinstance(moving.calc, TeacherCalculator)
    assert moving.calc.labels is not None
    frame.info = teacher_data(moving.calc.labels)
    return frame


def _largest_move(first: Atoms, second: Atoms) -> float:
    return float(np.linalg.norm(first.positions - second.positions, axis=1).max())


def _collapsed(moving: Atoms) -> bool:
    forces = moving.get_forces(apply_constraint=False)
    return not np.isfinite(forces).all() or bool(np.abs(forces).max() > RUNAWAY)


def _metal_heights(atoms: Atoms) -> NDArray[Any]:
    heights = atoms.positions[:, 2]
    metal = atoms.numbers > 20
    return heights[metal] if metal.any() else heights


MAKERS: dict[str, tuple[str, Callable[..., Iterator[Atoms]]]] = {
    "rattle": ("rattled", rattled),
    "strain": ("strained", strained),
    "given": ("given", given),
    "scale": ("scaled", scaled),
    "shear": ("sheared", sheared),
    "vacancy": ("vacancy", with_vacancy),
    "hot": ("hot", hot),
    "push": ("pushed", pushed),
    "pull": ("pulled", pulled),
    "stretch": ("stretched", stretched),
    "contact": ("contact", pressed),
}
"""Key in a recipe: kind of the frames, and what makes them without a teacher."""


def make_frames(
    atoms: Atoms, variants: Variants, *, teacher: Teacher | None, random: Generator
) -> list[Atoms]:
    """Return the frames that a recipe asks for, `info["kind"]` set.

    Every variant is made with the probability `share`. Constraints of the structure are
    honoured in relaxations and runs and kept in the frames.
    """
    makers = MAKERS | {
        "relax": ("relaxed", partial(_with_teacher, relaxed, teacher)),
        "thermal": ("thermal", partial(_with_teacher, thermal, teacher)),
    }
    frames: list[Atoms] = []
    for key, (kind, make) in makers.items():
        section: Variant | None = getattr(variants, key)
        if section is None or random.random() >= section.share:
            continue
        for frame in make(atoms, section, random=random):
            frame.info.setdefault("kind", kind)
            frames.append(frame)
    return frames


def _with_teacher(
    make: Callable[..., Iterator[Atoms]],
    teacher: Teacher | None,
    atoms: Atoms,
    section: Variant,
    *,
    random: Generator,
) -> Iterator[Atoms]:
    if teacher is None:
        raise TeacherError(
            "relaxed and thermal frames are made with a teacher; pass --teacher, or "
            "leave 'relax' and 'thermal' out of the recipe"
        )
    return make(atoms, section, teacher=teacher, random=random)


CHUNK = 8
"""Base structures per write; a kill loses at most these."""


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
        start=partial(_teacher_of, teacher),
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


def _teacher_of(spec: str | None) -> Teacher | None:
    return None if spec is None else load_teacher(spec)


def _frames_of(job: Job, teacher: Teacher | None) -> list[Atoms]:
    random = np.random.default_rng([job.seed, job.number, 1])
    if job.base.surface == "dimer":
        frames = [job.base.atoms]
        frames[0].info["kind"] = "dimer"
    else:
        frames = make_frames(
            job.base.atoms, job.variants, teacher=teacher, random=random
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
