"""Frames of a structure: rattled, strained, along a relaxation, thermal.

Each frame is drawn from a generator that the caller seeds per structure. Frames that
the teacher visited while relaxing or running carry its labels in `info` already.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin
from ase.optimize import LBFGS
from numpy.random import Generator
from numpy.typing import NDArray

from crack_md.data.recipes import Rattle, Relax, Strain, Thermal, Variants
from crack_md.data.teacher_rows import teacher_data
from crack_md.errors import TeacherError
from crack_md.models.teachers.base import (
    Teacher,
    TeacherCalculator,
    as_periodic,
)

RUNAWAY = 50.0
"""eV/Å at which a relaxation or run is given up: the structure has collapsed."""


def make_frames(
    atoms: Atoms, variants: Variants, *, teacher: Teacher | None, random: Generator
) -> list[Atoms]:
    """Return the frames that a recipe asks for, `info["kind"]` set.

    Every variant is made with the probability `share`. Constraints of the structure are
    honoured in relaxations and runs and kept in the frames.
    """
    frames: list[Atoms] = []
    for kind, section in (
        ("rattled", variants.rattle),
        ("strained", variants.strain),
        ("relaxed", variants.relax),
        ("thermal", variants.thermal),
    ):
        if section is None or random.random() >= section.share:
            continue
        for frame in _make(section, atoms, teacher, random):
            frame.info.setdefault("kind", kind)
            frames.append(frame)
    return frames


def _make(
    section: Rattle | Strain | Relax | Thermal,
    atoms: Atoms,
    teacher: Teacher | None,
    random: Generator,
) -> Iterator[Atoms]:
    if isinstance(section, Rattle):
        return rattled(atoms, section, random=random)
    if isinstance(section, Strain):
        return strained(atoms, section, random=random)
    if teacher is None:
        raise TeacherError(
            "relaxed and thermal frames are made with a teacher; pass --teacher, or "
            "leave 'relax' and 'thermal' out of the recipe"
        )
    if isinstance(section, Relax):
        return relaxed(atoms, section, teacher=teacher, random=random)
    return thermal(atoms, section, teacher=teacher, random=random)


def rattled(atoms: Atoms, section: Rattle, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with all atoms displaced, amplitudes drawn log-uniformly."""
    for _ in range(section.frames):
        low, high = np.log(section.smallest), np.log(section.largest)
        yield _displaced(atoms, float(np.exp(random.uniform(low, high))), random)


def strained(atoms: Atoms, section: Strain, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with a random symmetric strain of the periodic directions.

    A direction with vacuum keeps its length: stretching vacuum changes nothing. An
    isolated molecule therefore has its bonds scaled instead of its cell.
    """
    for _ in range(section.frames):
        components = random.uniform(-section.largest, section.largest, (3, 3))
        strain = (components + components.T) / 2
        frame = _displaced(atoms, section.rattle, random)
        closed = ~_open_directions(frame)
        if closed.any():
            strain *= np.outer(closed, closed)
            frame.set_cell(frame.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        else:
            center = frame.positions.mean(axis=0)
            # bonds are stiff and short: three times the strain of a metal probes them
            scale = np.eye(3) * (1 + 3 * strain[0, 0])
            frame.positions = (frame.positions - center) @ scale + center
        yield frame


def relaxed(
    atoms: Atoms, section: Relax, *, teacher: Teacher, random: Generator
) -> Iterator[Atoms]:
    """Yield labelled frames along a relaxation, its last one included.

    Where the structure brings no constraints and has a vacuum along z, its lower part
    is fixed while it relaxes.
    """
    moving = _prepared(atoms, section.rattle, teacher, random)
    if not moving.constraints and _open_directions(moving)[2]:
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
        end = _displaced(frame, float(amplitude), random)
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
    moving = as_periodic(_displaced(atoms, amplitude, random))
    moving.set_constraint(atoms.constraints)
    moving.calc = TeacherCalculator(teacher)
    return moving


def _displaced(atoms: Atoms, amplitude: float, random: Generator) -> Atoms:
    frame = atoms.copy()
    frame.info = {}
    shift = random.normal(0, amplitude, frame.positions.shape)
    frame.set_positions(frame.positions + shift)  # fixed atoms stay
    return frame


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


def _open_directions(atoms: Atoms, *, gap: float = 6.0) -> NDArray[Any]:
    """Return for each cell vector whether a vacuum of at least `gap` Å crosses it."""
    result = ~atoms.pbc.copy()
    for axis in np.flatnonzero(atoms.pbc):
        normal = np.cross(atoms.cell[axis - 2], atoms.cell[axis - 1])
        height = abs(atoms.cell[axis] @ normal) / np.linalg.norm(normal)
        scaled = np.sort(atoms.get_scaled_positions(wrap=True)[:, axis])
        widest = np.diff(np.append(scaled, scaled[0] + 1)).max()
        result[axis] = widest * height > gap
    return result
