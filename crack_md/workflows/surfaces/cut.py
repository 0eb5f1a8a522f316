"""Slabs cut from bulk crystals: Miller indices, terminations, thickness, width.

pymatgen finds the planes along which a crystal can be cut. The lattice is taken as it
is given: a bulk should be relaxed by the model that will screen its surfaces.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce

from crack_md.errors import ConfigError, MissingDependencyError
from crack_md.structures import StructureEntry
from crack_md.workflows.surfaces.slab import (
    NONMETALS,
    SlabError,
    check_structure,
    layers,
    vacuum_axes,
)

SYMMETRY_TOLERANCE_A = 0.1
SAME_SIDE_DEPTH_A = 5.0
"""Two terminations differ where atoms this deep below the top differ."""


class Plane(NamedTuple):
    """Miller indices, as they were written and as numbers."""

    text: str
    indices: tuple[int, int, int]


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
            return Plane(text, (digits[0], digits[1], digits[3]))
        if len(digits) == 3:
            return Plane(text, (digits[0], digits[1], digits[2]))
    raise ConfigError(
        f"cannot read the Miller indices '{text}'; expected three digits such as 111 "
        "or 1-10, or four that fit a hexagonal crystal such as 0001, separated by "
        "commas"
    )


def cut_entries(
    entries: Sequence[StructureEntry], settings: CutSettings
) -> tuple[StructureEntry, ...]:
    """Return the slabs of all bulks; what cannot be cut becomes an entry that says why.

    Raises:
        MissingDependencyError: pymatgen is not installed.
    """
    _require_pymatgen()
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
            except Exception as error:  # pymatgen raises many kinds
                text = " ".join(str(error).split())[:300] or type(error).__name__
                found.append(
                    StructureEntry(name, None, f"cannot be cut: {text}", "not_cut")
                )
            else:
                found += [replace(slab, name=f"{name}{slab.name}") for slab in slabs]
    return tuple(found)


def _require_pymatgen() -> None:
    try:
        import pymatgen.core.surface  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError.of(
            "pymatgen-core", extra="surfaces", purpose="Cutting slabs from bulks"
        ) from error


def _cut(bulk: Atoms, plane: Plane, settings: CutSettings) -> Iterator[StructureEntry]:
    """Yield the slabs of one plane, named by their termination where there are more."""
    check_structure(bulk)
    if not bulk.pbc.all() or vacuum_axes(bulk):
        raise SlabError(
            "not_a_bulk",
            "open along a cell vector: --miller cuts slabs from bulks; leave it out "
            "to screen slabs",
        )
    sides = _distinct_sides(list(_sides(bulk, plane, settings)))
    # The densest top layer first: without --terminations it is the one that is taken.
    sides.sort(key=lambda side: (-len(_top(side)), _top_formula(side)))
    labels = [_top_formula(side) for side in sides]
    counts, seen = Counter(labels), Counter[str]()
    for side, label in zip(sides, labels, strict=True):
        seen[label] += 1
        number = f" {seen[label]}" if counts[label] > 1 else ""
        shown = f" {label}-terminated{number}" if len(sides) > 1 else ""
        slab, size = _tile(side, settings)
        notes = (
            f"cut from a bulk, lattice as given: {settings.thickness_A:g} Å thick, "
            f"{size[0]}x{size[1]} cells",
        )
        if len(sides) > 1 and not settings.all_terminations:
            left_out = f"1 of {len(sides)} terminations, --terminations cuts all"
            yield StructureEntry(shown, slab, notes=(*notes, left_out))
            return
        yield StructureEntry(shown, slab, notes=notes)


def _sides(bulk: Atoms, plane: Plane, settings: CutSettings) -> Iterator[Atoms]:
    """Yield what pymatgen cuts, each slab also upside down where that differs."""
    from pymatgen.core.surface import SlabGenerator
    from pymatgen.io.ase import AseAtomsAdaptor
    from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about spglib's own future
        structure: Any = AseAtomsAdaptor.get_structure(_plain(bulk))
        symmetry = SpacegroupAnalyzer(structure, symprec=SYMMETRY_TOLERANCE_A)
        generator = SlabGenerator(
            symmetry.get_conventional_standard_structure(),
            plane.indices,
            # Planes have a thickness too, and whole cells are cut: see _trim.
            min_slab_size=settings.thickness_A + 3.0,
            min_vacuum_size=settings.vacuum_A,
            center_slab=True,
            max_normal_search=max(abs(index) for index in plane.indices),
        )
        for slab in generator.get_slabs():
            atoms: Atoms = AseAtomsAdaptor.get_atoms(slab.get_orthogonal_c_slab())
            atoms = _plain(atoms)
            atoms.rotate(atoms.cell[2], "z", rotate_cell=True)
            atoms.wrap()
            yield _trim(atoms, settings.thickness_A)
            if not slab.is_symmetric():
                yield _trim(_upside_down(atoms), settings.thickness_A)


def _plain(atoms: Atoms) -> Atoms:
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def _upside_down(atoms: Atoms) -> Atoms:
    """Return the slab turned by 180° about x: its lower side comes up."""
    turn = np.array([1.0, -1.0, -1.0])
    a, b, c = atoms.cell.array
    positions = atoms.positions * turn + c
    return Atoms(atoms.numbers, positions, cell=[b * turn, a * turn, c], pbc=True)


def _trim(atoms: Atoms, thickness_A: float) -> Atoms:
    """Return a metal without the layers that thickness does not need, from below.

    pymatgen adds whole cells, three layers at a time for fcc(111). Compounds keep
    them: without a layer they would not be neutral.
    """
    if not NONMETALS.isdisjoint(atoms.symbols):
        return atoms
    layer = layers(atoms.positions[:, 2])
    top = atoms.positions[layer == layer.max(), 2].mean()
    for lowest in range(int(layer.max()), -1, -1):
        if top - atoms.positions[layer == lowest, 2].mean() >= thickness_A - 1e-3:
            return atoms[layer >= lowest]
    return atoms


def _distinct_sides(sides: list[Atoms]) -> list[Atoms]:
    """Return the slabs whose upper sides differ; what lies deep does not count."""
    from pymatgen.core.structure_matcher import StructureMatcher

    matcher = StructureMatcher(primitive_cell=False, scale=False)
    distinct: list[tuple[Any, Atoms]] = []
    for atoms in sides:
        upper = _label_by_depth(atoms)
        if not any(matcher.fit(upper, other) for other, _ in distinct):
            distinct.append((upper, atoms))
    return [atoms for _, atoms in distinct]


def _label_by_depth(atoms: Atoms) -> Any:
    """Return the upper part with depth as oxidation state: up and down stay apart."""
    from pymatgen.core import Lattice, Species, Structure

    layer = layers(atoms.positions[:, 2])
    depth = atoms.positions[:, 2].max() - atoms.positions[:, 2]
    kept = np.flatnonzero(depth < SAME_SIDE_DEPTH_A)
    species = [Species(atoms.symbols[i], int(layer.max() - layer[i])) for i in kept]
    return Structure(
        Lattice(atoms.cell.array),
        species,
        atoms.positions[kept],
        coords_are_cartesian=True,
    )


def _top(atoms: Atoms) -> Atoms:
    layer = layers(atoms.positions[:, 2])
    return atoms[layer == layer.max()]


def _top_formula(atoms: Atoms) -> str:
    return str(_top(atoms).symbols.formula.reduce()[0].format("metal"))


def _tile(atoms: Atoms, settings: CutSettings) -> tuple[Atoms, tuple[int, int]]:
    """Return the slab in a compact, wide enough cell, and how many cells that took."""
    reduced, _ = minkowski_reduce(atoms.cell, pbc=[True, True, False])
    slab = atoms.copy()
    slab.set_cell(reduced)
    slab.wrap(pbc=[True, True, False])
    lengths = np.linalg.norm(slab.cell.array[:2], axis=1)
    na, nb = (int(n) for n in np.ceil(settings.width_A / lengths - 1e-3))
    slab = slab.repeat((na, nb, 1))
    slab.center(vacuum=settings.vacuum_A / 2, axis=2)
    order = np.argsort(np.round(slab.positions[:, 2], 3), kind="stable")
    return slab[order], (na, nb)
