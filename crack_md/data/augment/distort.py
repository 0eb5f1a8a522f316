"""Frames of a structure without a teacher: rattled, strained, pushed, pulled, pressed.

They show where a bond ends and where atoms repel; structures at rest show neither.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.random import Generator
from numpy.typing import NDArray

from crack_md.data.augment.crystals import OH_BOND, drop_height, site_above
from crack_md.data.augment.recipe import (
    Contact,
    Given,
    Hot,
    Pull,
    Push,
    Rattle,
    Scale,
    Shear,
    Strain,
    Stretch,
    Vacancy,
)

LIGHT = 10
"""Atomic number up to which an atom belongs to an adsorbate or a molecule."""
HYDROGEN_BOND = 1.35
"""Å, reach within which a hydrogen atom moves with a heavier one."""
HYDROGEN_RATTLE = 0.1
"""Å, largest rattle of a hydrogen atom against the atom that carries it."""
GAP = 6.0
"""Å of vacuum along a cell vector that make the structure open there."""


def given(atoms: Atoms, section: Given, *, random: Generator) -> Iterator[Atoms]:
    """Yield the structure itself."""
    del random
    for _ in range(section.frames):
        yield displaced(atoms, 0.0, np.random.default_rng(0))


def rattled(atoms: Atoms, section: Rattle, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with all atoms displaced, amplitudes drawn log-uniformly."""
    for _ in range(section.frames):
        amplitude = log_uniform(section.smallest, section.largest, random)
        yield displaced(atoms, amplitude, random)


def strained(atoms: Atoms, section: Strain, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with a random symmetric strain of the periodic directions.

    A direction with vacuum keeps its length: stretching vacuum changes nothing. An
    isolated molecule therefore has its bonds scaled instead of its cell.
    """
    for _ in range(section.frames):
        components = random.uniform(-section.largest, section.largest, (3, 3))
        strain = (components + components.T) / 2
        frame = displaced(atoms, section.rattle, random)
        closed = ~open_directions(frame)
        if closed.any():
            strain *= np.outer(closed, closed)
            frame.set_cell(frame.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        else:
            # bonds are stiff and short: three times the strain of a metal probes them
            _scale_positions(frame, 1 + 3 * strain[0, 0])
        yield frame


def scaled(atoms: Atoms, section: Scale, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with all distances scaled by one factor, vacuum left as it is.

    Molecules come without: their bonds are stretched one by one (`Stretch`).
    """
    opened = open_directions(atoms)
    for _ in range(section.frames if not opened.all() else 0):
        factor = float(random.uniform(section.smallest, section.largest))
        frame = displaced(atoms, section.rattle, random)
        _scale_positions(frame, factor)
        cell = frame.cell.array * np.where(opened, 1.0, factor)[:, np.newaxis]
        frame.set_cell(cell)
        yield frame


def sheared(atoms: Atoms, section: Shear, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies where planes along one axis slide along another.

    The cell follows along periodic directions; across a vacuum layers slide alone.
    """
    opened = open_directions(atoms)
    for _ in range(section.frames if not opened.all() else 0):
        frame = displaced(atoms, section.rattle, random)
        # r_x → r_x + γ r_y, the axes drawn; the vacuum itself does not slide
        axes = random.permutation(3)
        if opened[axes[0]]:
            axes = axes[[1, 0, 2]]
        gradient = np.eye(3)
        gradient[axes[1], axes[0]] = random.uniform(-section.largest, section.largest)
        frame.positions = frame.positions @ gradient
        cell = frame.cell.array @ gradient
        frame.set_cell(np.where(opened[:, np.newaxis], frame.cell.array, cell))
        yield frame


def with_vacancy(
    atoms: Atoms, section: Vacancy, *, random: Generator
) -> Iterator[Atoms]:
    """Yield copies without one metal atom.

    A small bulk cell is repeated before; a small slab gives none.
    """
    whole = atoms.copy()
    opened = open_directions(atoms)
    while len(whole) < section.atoms and not opened.any():
        axis = int(np.argmin(whole.cell.lengths()))
        whole = whole.repeat([2 if k == axis else 1 for k in range(3)])
    metal = np.flatnonzero(whole.numbers > LIGHT)
    for _ in range(section.frames if len(metal) >= section.atoms else 0):
        frame = whole.copy()
        del frame[int(random.choice(metal))]
        yield displaced(frame, section.rattle, random)


def hot(atoms: Atoms, section: Hot, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with displacements of which neighbors share a half, and expanded.

    The shared half has the covariance σ² exp(−d²/2λ²) at the distance d, λ the
    correlation length: long waves have the largest amplitudes in a hot crystal.
    """
    opened = open_directions(atoms)
    waves = _correlation(atoms, section.correlation_length)
    for _ in range(section.frames):
        amplitude = random.uniform(section.smallest, section.largest) / np.sqrt(2)
        frame = displaced(atoms, amplitude, random)
        frame.set_positions(
            frame.positions + amplitude * waves @ random.normal(size=(len(atoms), 3))
        )
        factor = 1 + random.uniform(0, section.expansion)
        if not opened.all():
            _scale_positions(frame, factor)
            cell = frame.cell.array * np.where(opened, 1.0, factor)[:, np.newaxis]
            frame.set_cell(cell)
        yield frame


def displaced(atoms: Atoms, amplitude: float, random: Generator) -> Atoms:
    """Return a copy with all atoms displaced by `amplitude` Å per coordinate.

    A hydrogen atom moves with the heavier atom that carries it, and little against it:
    its bond is far stiffer than those of metals. Fixed atoms stay.
    """
    frame = atoms.copy()
    frame.info = {}
    shift = random.normal(0, amplitude, frame.positions.shape)
    for hydrogen in np.flatnonzero(atoms.numbers == 1):
        carrier = _carrier(atoms, int(hydrogen))
        if carrier is not None:
            shift[hydrogen] *= min(1.0, HYDROGEN_RATTLE / max(amplitude, 1e-12))
            shift[hydrogen] += shift[carrier]
    frame.set_positions(frame.positions + shift)  # fixed atoms stay
    return frame


def log_uniform(low: float, high: float, random: Generator) -> float:
    """Return a number whose logarithm is drawn evenly."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def open_directions(atoms: Atoms, *, gap: float = GAP) -> NDArray[np.bool_]:
    """Return for each cell vector whether a vacuum of at least `gap` Å crosses it."""
    result = ~atoms.pbc.copy()
    for axis in np.flatnonzero(atoms.pbc):
        normal = np.cross(atoms.cell[axis - 2], atoms.cell[axis - 1])
        height = abs(atoms.cell[axis] @ normal) / np.linalg.norm(normal)
        along = np.sort(atoms.get_scaled_positions(wrap=True)[:, axis])
        widest = np.diff(np.append(along, along[0] + 1)).max()
        result[axis] = widest * height > gap
    return result


def _carrier(atoms: Atoms, hydrogen: int) -> int | None:
    heavy = np.flatnonzero((atoms.numbers > 1) & (atoms.numbers <= LIGHT))
    if len(heavy) == 0:
        return None
    distance = atoms.get_distances(hydrogen, heavy, mic=True)
    nearest = int(np.argmin(distance))
    return int(heavy[nearest]) if distance[nearest] < HYDROGEN_BOND else None


def _scale_positions(frame: Atoms, factor: float) -> None:
    center = frame.positions.mean(axis=0)
    frame.positions = (frame.positions - center) * factor + center


def _correlation(atoms: Atoms, length: float) -> NDArray[Any]:
    """Return a matrix that turns independent numbers into correlated ones."""
    distance = atoms.get_all_distances(mic=True)
    values, vectors = np.linalg.eigh(np.exp(-(distance**2) / (2 * length**2)))
    # nearest images make the matrix slightly indefinite in small cells
    root = vectors * np.sqrt(np.clip(values, 0, None))
    return root / np.linalg.norm(root, axis=1, keepdims=True)


SITES = {"here": 0.4, "ontop": 0.25, "bridge": 0.1, "hollow": 0.1, "anywhere": 0.15}
"""Where an adsorbate is pushed into the surface; `here` is where it stands."""
TRIES = 30
LIGHT_BOND = 1.7
"""Å, longest distance of two light atoms that is a bond."""


def pushed(atoms: Atoms, section: Push, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with the adsorbate pressed onto a metal atom, or below the surface.

    One half has the lowest atom of the adsorbate at a drawn distance from the nearest
    metal atom straight below or beside it, as a ball rests on balls. The other half has
    it anywhere down to a depth, no nearer than allowed.
    """
    adsorbate = _adsorbate(atoms)
    for _ in range(section.frames if len(adsorbate) else 0):
        frame = displaced(atoms, section.rattle, random)
        metal = frame[frame.numbers > LIGHT]
        for _ in range(TRIES):
            target = _pushed_position(frame, metal, adsorbate, section, random)
            moved = frame.copy()
            moved.positions[adsorbate] += target - frame.positions[adsorbate[0]]
            if _nearest(moved, adsorbate) >= section.nearest - 1e-6:
                yield moved
                break


def pulled(atoms: Atoms, section: Pull, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with the adsorbate raised above where it stands."""
    adsorbate = _adsorbate(atoms)
    for _ in range(section.frames if len(adsorbate) else 0):
        frame = displaced(atoms, section.rattle, random)
        frame.positions[adsorbate, 2] += random.uniform(
            section.nearest, section.farthest
        )
        yield frame


def stretched(atoms: Atoms, section: Stretch, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with the bonds of O and H atoms stretched, each on its own.

    Above a surface an O-H bond is turned as well, to any direction in which the
    hydrogen atom keeps the smallest bond length from all others.
    """
    bonds = light_bonds(atoms)
    on_slab = not open_directions(atoms).all()
    for _ in range(section.frames if bonds else 0):
        for _ in range(TRIES):
            frame = displaced(atoms, 0.02, random)
            for fixed, moving in bonds:
                bond = frame.get_distance(fixed, moving, mic=True, vector=True)
                ideal = atoms.get_distance(fixed, moving, mic=True)
                if on_slab:
                    bond = _direction(random)
                    ideal = OH_BOND
                factor = log_uniform(section.nearest, section.farthest, random)
                length = factor * ideal / OH_BOND
                frame.positions[moving] = (
                    frame.positions[fixed] + bond / np.linalg.norm(bond) * length
                )
            if _nearest(frame, np.array([bonds[0][1]])) > 0.9 * section.nearest:
                yield frame
                break


def pressed(atoms: Atoms, section: Contact, *, random: Generator) -> Iterator[Atoms]:
    """Yield copies with two neighbors brought closer along their line."""
    if len(atoms) < 2:
        return
    for _ in range(section.frames):
        frame = displaced(atoms, section.rattle, random)
        first = int(random.integers(len(frame)))
        to_others = frame.get_distances(first, range(len(frame)), mic=True)
        to_others[first] = np.inf
        # one of the nearest: its image in a small cell would move along
        near = np.flatnonzero(to_others < 1.2 * to_others.min())
        second = int(random.choice(near))
        line = frame.get_distance(first, second, mic=True, vector=True)
        factor = log_uniform(section.nearest, section.farthest, random)
        frame.positions[first] += (1 - factor) / 2 * line
        frame.positions[second] -= (1 - factor) / 2 * line
        yield frame


def light_bonds(atoms: Atoms) -> list[tuple[int, int]]:
    """Return the bonds between O and H atoms as (atom that stays, atom that moves).

    Hydrogen moves where there is one, and every atom moves for one bond only.
    """
    bonds: dict[int, int] = {}
    light = np.flatnonzero(atoms.numbers <= LIGHT)
    for moving in sorted(light, key=lambda k: (atoms.numbers[k], -k)):
        others = [int(k) for k in light if k != moving and bonds.get(int(k)) != moving]
        others = [k for k in others if atoms.numbers[k] >= atoms.numbers[moving]]
        if int(moving) in bonds.values() or not others:
            continue
        distance = atoms.get_distances(moving, others, mic=True)
        if distance.min() < LIGHT_BOND:
            bonds[int(moving)] = others[int(np.argmin(distance))]
    return [(fixed, moving) for moving, fixed in bonds.items()]


def _pushed_position(
    frame: Atoms,
    metal: Atoms,
    adsorbate: NDArray[np.int_],
    section: Push,
    random: Generator,
) -> NDArray[np.float64]:
    site = str(random.choice(list(SITES), p=list(SITES.values())))
    here = frame.positions[adsorbate[0]]
    lateral = here[:2] if site == "here" else site_above(metal, site, random=random)
    if random.random() < 0.5:
        contact = log_uniform(section.nearest, section.farthest, random)
        return np.array([*lateral, drop_height(metal, lateral, contact)])
    top = float(metal.positions[:, 2].max())
    return np.array([*lateral, random.uniform(top - section.depth, top + 1.0)])


def _adsorbate(atoms: Atoms) -> NDArray[np.int_]:
    """Return one adsorbate of a slab, its lowest-numbered heavy atom first."""
    light = np.flatnonzero(atoms.numbers <= LIGHT)
    opened = open_directions(atoms)
    if len(light) == 0 or len(light) == len(atoms) or opened[:2].any() or not opened[2]:
        return np.array([], dtype=int)
    first = int(light[0])
    with_it = [moving for fixed, moving in light_bonds(atoms) if fixed == first]
    return np.array([first, *with_it], dtype=int)


def _nearest(atoms: Atoms, chosen: NDArray[np.int_]) -> float:
    """Return the shortest distance from one of the chosen atoms to any other atom."""
    receivers, distance = neighbor_list("id", atoms, 2.5)
    mine = np.isin(receivers, chosen)
    return float(distance[mine].min()) if mine.any() else 2.5


def _direction(random: Generator) -> NDArray[np.float64]:
    direction = random.normal(size=3)
    return direction / np.linalg.norm(direction)
