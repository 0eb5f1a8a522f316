"""Slabs cut from bulk crystals: Miller indices, terminations, thickness, width.

A lattice plane (hkl) has the normal G = h a* + k b* + l c* and the spacing 1/|G|. The
vectors of the lattice in the plane are those integers n with h·n = 0.

The lattice and the atoms are taken exactly as they are given, strain included: a bulk
should be relaxed by the model that will screen its surfaces.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from crack_md.errors import ConfigError
from crack_md.structures import NONMETALS, StructureEntry
from crack_md.workflows.surfaces.orientation import crystal_planes
from crack_md.workflows.surfaces.slab import SlabError, check_structure, vacuum_axes
from crack_md.workflows.surfaces.symmetry import kinds_of, operations, primitive_cell

Matrix = NDArray[np.float64]
Integers = NDArray[np.int_]

ANGLE_DEG = 0.05
LENGTH_RATIO = 1e-3
MOST_CELLS = 12
CENTRED = (
    (60.0, "face-centred", np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])),
    (np.degrees(np.arccos(-1 / 3)), "body-centred", 1 - np.eye(3, dtype=int)),
)
"""Angle between primitive vectors, and the cubic ones as sums of these."""


class Plane(NamedTuple):
    """Miller indices, as they were written and as numbers."""

    text: str
    indices: tuple[int, int, int]
    hexagonal: bool = False
    """Whether there were four, for axes a and b at 120°."""


def parse_planes(text: str) -> tuple[Plane, ...]:
    """Return the planes in ``111,1-10,0001``; of four indices, the third is redundant.

    Raises:
        ConfigError: not a list of Miller indices.
    """
    return tuple(_parse_plane(part.strip()) for part in text.split(","))


def _parse_plane(text: str) -> Plane:
    digits = [int(digit) for digit in re.findall(r"-?\d", text)]
    if "".join(str(digit) for digit in digits) == text and any(digits):
        if len(digits) == 4 and sum(digits[:3]) == 0:
            return Plane(text, (digits[0], digits[1], digits[3]), hexagonal=True)
        if len(digits) == 3:
            return Plane(text, (digits[0], digits[1], digits[2]))
    raise ConfigError(
        f"cannot read the Miller indices '{text}'; expected three digits such as 111 "
        "or 1-10, or four that fit a hexagonal crystal such as 0001, separated by "
        "commas"
    )


def plane_normal(cell: Matrix, plane: Plane) -> tuple[Matrix, str]:
    """Return G in 1/Å, and which axes the indices were taken to refer to.

    They refer to the cell vectors as given, with one exception: where these are
    primitive vectors of a cubic lattice (or multiples of them), indices refer to the
    cubic axes, as everybody writes them.

    Raises:
        SlabError: four indices, and the cell is not hexagonal.
    """
    if plane.hexagonal:
        cell = _hexagonal_axes(cell)
        axes, words = cell, "the hexagonal axes of the cell"
    elif (cubic := _cubic_axes(cell)) is not None:
        axes, kind = cubic
        length = np.linalg.norm(axes[0])
        words = f"the cubic axes of the {kind} lattice, a = {length:.3f} Å"
    else:
        axes, words = cell, "the cell vectors as given"
    return np.linalg.solve(axes, np.array(plane.indices, dtype=float)), words


def _hexagonal_axes(cell: Matrix) -> Matrix:
    """Return the cell with 120° between a and b."""
    lengths = np.linalg.norm(cell, axis=1)
    cosines = cell @ cell.T / np.outer(lengths, lengths)
    alike = abs(lengths[0] / lengths[1] - 1) < 0.02
    upright = max(abs(cosines[0, 2]), abs(cosines[1, 2])) < 0.02
    if not (alike and upright and abs(abs(cosines[0, 1]) - 0.5) < 0.02):
        raise SlabError(
            "not_cut",
            "four Miller indices need a hexagonal cell, a = b at 120° and c upright; "
            "give three for the cell vectors of this one",
        )
    if cosines[0, 1] < 0:
        return cell
    return np.array([cell[0], cell[1] - cell[0], cell[2]])


def _cubic_axes(cell: Matrix) -> tuple[Matrix, str] | None:
    """Return the cubic axes of a cell of primitive vectors or multiples of them."""
    lengths = np.linalg.norm(cell, axis=1)
    for angle, kind, sums in CENTRED:
        for signs in product((1, -1), repeat=2):
            turned = cell * np.array([1, *signs])[:, None]
            cosines = turned @ turned.T / np.outer(lengths, lengths)
            angles = np.degrees(
                np.arccos(np.clip(cosines[[0, 0, 1], [1, 2, 2]], -1, 1))
            )
            if np.abs(angles - angle).max() > ANGLE_DEG:
                continue
            counts = _integer_ratios(lengths)
            if counts is None:
                return None
            axes = sums @ (turned / counts[:, None])
            return _along_xyz(axes), kind
    return None


def _integer_ratios(lengths: Matrix) -> Integers | None:
    """Return the smallest integers in proportion to the lengths, if there are any."""
    ratios = [
        Fraction(length / lengths[0]).limit_denominator(MOST_CELLS)
        for length in lengths
    ]
    common = np.lcm.reduce([ratio.denominator for ratio in ratios])
    counts = np.array([int(ratio * common) for ratio in ratios])
    if counts.min() < 1 or counts.max() > MOST_CELLS:
        return None
    even = np.abs(lengths / counts / (lengths / counts).mean() - 1) < LENGTH_RATIO
    return counts if even.all() else None


def _along_xyz(axes: Matrix) -> Matrix:
    """Return cubic axes in the order and with the signs of x, y and z, if they are."""
    unit = axes / np.linalg.norm(axes, axis=1)[:, None]
    largest = np.abs(unit).argmax(axis=0)
    if np.abs(unit).max(axis=0).min() < 1 - 1e-6:
        return axes
    return axes[largest] * np.sign(unit[largest, range(3)])[:, None]


def integer_indices(vectors: Matrix, normal: Matrix) -> Integers:
    """Return the coprime indices of a plane with respect to lattice vectors.

    Raises:
        SlabError: it is no plane of the lattice.
    """
    steps = vectors @ normal
    scaled = steps / np.abs(steps).max()
    fractions = [Fraction(float(s)).limit_denominator(1000) for s in scaled]
    common = np.lcm.reduce([fraction.denominator for fraction in fractions])
    indices = np.array([int(fraction * int(common)) for fraction in fractions])
    if np.abs(indices / common - scaled).max() > 1e-5:
        raise SlabError("not_cut", "no plane of the lattice has these indices")
    return np.asarray(indices // np.gcd.reduce(indices))


def cell_along(indices: Integers) -> Integers:
    """Return integer rows u, v, w of determinant 1 with h·u = h·v = 0 and h·w = 1."""
    h, k, n = (int(index) for index in indices)
    divisor, x, y = _bezout(h, k)
    if divisor == 0:
        rows = np.array([[1, 0, 0], [0, 1, 0], [0, 0, n]])
    else:
        _, s, t = _bezout(divisor, n)
        rows = np.array(
            [
                [-k // divisor, h // divisor, 0],
                [-n * x, -n * y, divisor],
                [s * x, s * y, t],
            ]
        )
    if round(np.linalg.det(rows)) < 0:
        rows[0] = -rows[0]
    return rows


def _bezout(a: int, b: int) -> tuple[int, int, int]:
    """Return g, x, y with a·x + b·y = g, the greatest common divisor."""
    x, y, next_x, next_y = 1, 0, 0, 1
    while b:
        quotient = a // b
        a, b = b, a - quotient * b
        x, next_x = next_x, x - quotient * next_x
        y, next_y = next_y, y - quotient * next_y
    return (a, x, y) if a >= 0 else (-a, -x, -y)


SYMMETRY_TOLERANCE_A = 0.01
SAME_PLACE = 0.02
"""Spacings of the plane: nearer layers are the same layer."""
MOST_ATOMS = 20_000
"""Of a slab: larger ones come from a slip of the keyboard, and end in no memory."""
MARGIN_A = 6.0
"""Piled up beyond what is needed: layers at the ends may be incomplete."""


@dataclass(frozen=True)
class CutSettings:
    """Which slabs to cut from every bulk."""

    planes: tuple[Plane, ...]
    all_terminations: bool = False
    thickness_A: float = 6.0
    """At least so much between the outermost nuclei: four (111) layers of Cu or Pt."""
    vacuum_A: float = 15.0
    width_A: float = 4.9
    """Both lateral vectors are at least so long: p(2x2) on (111) of Ni and larger."""


def cut_entries(
    entries: Sequence[StructureEntry], settings: CutSettings
) -> tuple[StructureEntry, ...]:
    """Return the slabs of all bulks; what cannot be cut becomes a row that says why."""
    found: list[StructureEntry] = []
    for entry in entries:
        base = entry.name.removesuffix("-1") if len(entries) == 1 else entry.name
        if entry.atoms is None:
            found.append(entry)
            continue
        for plane in settings.planes:
            name = f"{base}({plane.text})"
            try:
                slabs = tuple(_cut(entry.atoms, plane, settings))
            except SlabError as error:
                found.append(StructureEntry(name, None, str(error), error.status))
            except Exception as error:  # one odd bulk must not end the others
                text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                found.append(
                    StructureEntry(name, None, f"cannot be cut: {text}", "not_cut")
                )
            else:
                for slab in slabs:
                    notes = (*entry.notes, *slab.notes)
                    found.append(replace(slab, name=f"{name}{slab.name}", notes=notes))
    return tuple(found)


def _cut(bulk: Atoms, plane: Plane, settings: CutSettings) -> Iterator[StructureEntry]:
    """Yield the slabs of one plane, named by their termination where there are more."""
    check_structure(bulk)
    if not bulk.pbc.all() or vacuum_axes(bulk):
        raise SlabError(
            "not_a_bulk",
            "open along a cell vector: --miller cuts slabs from bulks; leave it out "
            "to screen slabs",
        )
    normal, axes = plane_normal(bulk.cell.array, plane)
    crystal = primitive_cell(_bare(bulk))
    _check_size(crystal, settings)
    indices = integer_indices(crystal.cell.array, normal)
    sides = _distinct_sides(crystal, indices, settings.thickness_A)
    # The densest top layer first, of these the farthest from the next: without
    # --terminations it is the one that is taken.
    sides.sort(key=lambda side: (-side.n_top, side.top, -round(side.gap_A, 3)))
    counts, seen = Counter(side.top for side in sides), Counter[str]()
    for side in sides:
        seen[side.top] += 1
        number = f" {seen[side.top]}" if counts[side.top] > 1 else ""
        shown = f" {side.top}-terminated{number}" if len(sides) > 1 else ""
        slab, size = _tile(_trim(side, settings.thickness_A), settings)
        notes = (
            f"cut from a bulk: Miller indices of {axes}; {settings.thickness_A:g} Å "
            f"thick, {size[0]}x{size[1]} cells",
        )
        if len(sides) > 1 and not settings.all_terminations:
            left_out = f"1 of {len(sides)} terminations, --terminations cuts all"
            yield StructureEntry(shown, slab, notes=(*notes, left_out))
            return
        yield StructureEntry(shown, slab, notes=notes)


def _check_size(crystal: Atoms, settings: CutSettings) -> None:
    """Refuse slabs that would not fit into memory, before they are piled up.

    Raises:
        SlabError: thickness times width squared holds too many atoms.
    """
    volume = settings.thickness_A * settings.width_A**2
    expected = volume * len(crystal) / crystal.get_volume()
    if expected > MOST_ATOMS:
        raise SlabError(
            "not_cut",
            f"a slab {settings.thickness_A:g} Å thick and {settings.width_A:g} Å wide "
            f"has some {expected:.2g} atoms; expected {MOST_ATOMS} at most: lower "
            "--thickness or --width",
        )


def _bare(bulk: Atoms) -> Atoms:
    """Return what a bulk and its slabs share: no constraints, tags or motion."""
    bare = Atoms(bulk.numbers, bulk.positions, cell=bulk.cell, pbc=True)
    bare.set_initial_magnetic_moments(bulk.get_initial_magnetic_moments())
    if not bare.get_initial_magnetic_moments().any():
        del bare.arrays["initial_magmoms"]
    return bare


class _Side(NamedTuple):
    """One way to end a crystal: a pile of its layers along z, and which is on top."""

    pile: Atoms
    layer: NDArray[np.int_]
    period: int
    """Layers until the pile repeats."""
    last: int
    """The layer that is on top."""
    top: str
    """Formula of that layer."""
    n_top: int
    gap_A: float
    """Distance to the layer that was cut off."""
    place: float
    """Height of the top layer in the crystal, in spacings of the plane."""


def _distinct_sides(
    crystal: Atoms, indices: Integers, thickness_A: float
) -> list[_Side]:
    """Return the ends that no symmetry operation of the crystal maps on each other.

    An operation x → W x + w with h W = σ h takes the side that faces along s h, its top
    layer at the height y, to the side along σ s h, at y + σ s h·w.
    """
    rotations, translations = operations(
        crystal.cell.array,
        crystal.get_scaled_positions(),
        kinds_of(crystal),
        tolerance_A=SYMMETRY_TOLERANCE_A,
    )
    turned = indices @ rotations
    kept = [
        (sigma, float(translation @ indices))
        for sigma in (1, -1)
        for translation in translations[(turned == sigma * indices).all(axis=1)]
    ]
    known: list[tuple[int, float]] = []
    distinct = []
    for sign in (1, -1):
        for side in _sides(crystal, sign * indices, thickness_A):
            if any(
                s == sign and abs((y - side.place + 0.5) % 1.0 - 0.5) < SAME_PLACE
                for s, y in known
            ):
                continue
            distinct.append(side)
            known += [(o * sign, side.place + o * sign * shift) for o, shift in kept]
    return distinct


def _sides(crystal: Atoms, indices: Integers, thickness_A: float) -> Iterator[_Side]:
    """Yield every way to end the crystal within one period along a plane's normal."""
    pile, period_of, start = _pile(crystal, indices, thickness_A)
    layer = crystal_planes(pile.positions[:, 2])
    heights = np.bincount(layer, pile.positions[:, 2]) / np.bincount(layer)
    n_periods = int(period_of.max())
    first, following = (
        int(layer[period_of == n_periods - back].min()) for back in (2, 1)
    )
    for last in range(first, following):
        top = pile.symbols[layer == last].formula.reduce()[0].format("metal")
        yield _Side(
            pile,
            layer,
            following - first,
            last,
            str(top),
            int((layer == last).sum()),
            float(heights[last + 1] - heights[last]),
            float(heights[last] / pile.cell[2, 2] + start),
        )


def _pile(
    crystal: Atoms, indices: Integers, thickness_A: float
) -> tuple[Atoms, NDArray[np.int_], float]:
    """Return the crystal repeated along the normal of a plane, which is turned to z.

    Also the period of every atom, and where periods begin in the crystal: in the widest
    gap between its atoms.
    """
    rows = cell_along(indices)
    rows[0] *= int(np.sign(np.linalg.det(crystal.cell.array)))
    u, v, w = rows @ crystal.cell.array
    z = np.cross(u, v) / np.linalg.norm(np.cross(u, v))
    x = u / np.linalg.norm(u)
    axes = np.array([x, np.cross(z, x), z])
    scaled = np.linalg.solve(rows.T, crystal.get_scaled_positions(wrap=False).T).T
    heights = np.sort(scaled[:, 2] % 1.0)
    gaps = np.diff(np.append(heights, heights[0] + 1.0))
    start = heights[gaps.argmax()] + gaps.max() / 2
    scaled[:, 2] = (scaled[:, 2] - start) % 1.0
    n_periods = int(np.ceil((thickness_A + MARGIN_A) / float(w @ z))) + 3
    period_of = np.repeat(np.arange(n_periods), len(crystal))
    pile = crystal[np.tile(np.arange(len(crystal)), n_periods)]
    pile.set_cell(np.array([u, v, w]) @ axes.T)
    pile.positions = np.tile(scaled, (n_periods, 1)) @ pile.cell.array
    pile.positions += period_of[:, None] * pile.cell.array[2]
    return pile, period_of, float(start)


def _trim(side: _Side, thickness_A: float) -> Atoms:
    """Return the layers from the top down that the thickness needs, normal along z.

    Compounds keep whole periods: without a layer they would not be neutral.
    """
    pile, layer = side.pile, side.layer
    heights = np.bincount(layer, pile.positions[:, 2]) / np.bincount(layer)
    step = 1 if NONMETALS.isdisjoint(pile.numbers.tolist()) else side.period
    lowest = side.last - step + 1
    while lowest > 0 and heights[side.last] - heights[lowest] < thickness_A - 1e-3:
        lowest -= step
    slab = pile[(layer >= lowest) & (layer <= side.last)]
    upright = slab.cell.array.copy()
    upright[2] = [0.0, 0.0, np.ptp(slab.positions[:, 2]) + MARGIN_A]
    slab.set_cell(upright)
    return slab


def _tile(slab: Atoms, settings: CutSettings) -> tuple[Atoms, tuple[int, int]]:
    """Return the slab in a compact, wide enough cell, and how many cells that took."""
    reduced, _ = minkowski_reduce(slab.cell, pbc=[True, True, False])
    slab.set_cell(reduced)
    slab.wrap(pbc=[True, True, False])
    lengths = np.linalg.norm(slab.cell.array[:2], axis=1)
    na, nb = (int(n) for n in np.ceil(settings.width_A / lengths - 1e-3))
    slab = slab.repeat((na, nb, 1))
    slab.center(vacuum=settings.vacuum_A / 2, axis=2)
    order = np.argsort(np.round(slab.positions[:, 2], 3), kind="stable")
    return slab[order], (na, nb)
