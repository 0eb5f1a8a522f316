"""Labelled frames that a teacher visits: along a relaxation and in a thermal run."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.optimize import LBFGS
from numpy.random import Generator
from numpy.typing import NDArray

from crack_md.data.augment.distort import displaced, open_directions
from crack_md.data.augment.variants import Relax, Thermal
from crack_md.data.teacher_rows import teacher_data
from crack_md.models.teachers.base import (
    Teacher,
    TeacherCalculator,
    as_periodic,
)

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
