"""From any structure a user hands in to a slab with a known, upward free surface.

A prepared slab has its vacuum along c, its surface normal along +z, periodic
boundaries in all three directions (some potentials are wrong for mixed ones), OC20's
tags (0 below, 1 surface; an adsorbate will get 2) and atoms that are held in place. The
user's constraints and OC20 tags are kept; without constraints the lower half of the
layers is fixed, and other tags (ASE numbers layers) are replaced by OC20's. What is no
clean slab is refused with a status for its table row.
"""

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from jaxtyping import Float
from numpy.typing import NDArray

from crack_md.errors import StructureError
from crack_md.structures import NONMETALS
from crack_md.workflows.surfaces.orientation import (
    LAYER_GAP_A,
    ConstraintError,
    Upright,
    held_atoms,
    layers,
    partly_held_atoms,
    turn_upright,
)
from crack_md.workflows.surfaces.surface_atoms import adsorbed_atoms, exposed_atoms

OVERLAP_A = 0.7
"""Nuclei nearer than this (H-H in H2 is 0.74 Å) mean a broken structure."""
OVERLAP_SCALE = 0.5
"""So do atoms nearer than half the sum of their covalent radii."""


class SlabError(StructureError):
    """A structure that cannot be screened; ``status`` is what its table row says."""

    def __init__(self, status: str, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type["SlabError"], tuple[str, str]]:
        """Keep the status when the error crosses a process boundary."""
        return SlabError, (self.status, str(self))


def check_structure(atoms: Atoms) -> None:
    """Raise SlabError("bad_structure") for what no model could be asked about."""

    def refuse(reason: str) -> None:
        raise SlabError("bad_structure", reason)

    if len(atoms) == 0:
        refuse("the structure has no atoms")
    if not np.isfinite(atoms.positions).all():
        refuse("positions are not finite (NaN or infinity); repair or drop the row")
    if not np.isfinite(atoms.cell.array).all():
        refuse("the cell is not finite (NaN or infinity); repair or drop the row")
    if (atoms.numbers < 1).any():
        refuse("atoms of unknown element (atomic number 0, 'X'); name their elements")
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic) and np.linalg.matrix_rank(periodic, tol=1e-3) < len(periodic):
        refuse("periodic along a cell vector that is zero or parallel to another")
    vectors = atoms.cell.array[atoms.cell.lengths() > 0]
    if len(vectors) and np.linalg.matrix_rank(vectors, tol=1e-6) < len(vectors):
        refuse("cell vectors are parallel to one another; make one of them zero")
    radii = covalent_radii[atoms.numbers]
    reach = max(OVERLAP_A, 2 * OVERLAP_SCALE * float(radii.max()))
    first, second, distance = neighbor_list("ijd", atoms, reach)
    nearest = np.maximum(OVERLAP_A, OVERLAP_SCALE * (radii[first] + radii[second]))
    overlaps = np.flatnonzero(distance < nearest)
    if len(overlaps):
        pair = overlaps[0]
        names = [f"{atoms.symbols[i]} (atom {i})" for i in (first[pair], second[pair])]
        refuse(
            f"{names[0]} and {names[1]} are {distance[pair]:.2f} Å apart, closer than "
            "atoms can be; repair the structure"
        )


def refuse_adsorbate(slab: Atoms, layer: NDArray[np.int_]) -> None:
    """Raise SlabError("has_adsorbate") when something sits on a surface already.

    Bonds tell (`adsorbed_atoms`), and tags that OC20 or ASE give to adsorbates: of
    non-metals in the top layer, and of metals that are a top layer of their own.
    """
    bonded = adsorbed_atoms(slab)
    tagged = _tagged_as_adsorbate(slab, layer)
    found = np.flatnonzero(bonded | tagged)
    if len(found) == 0:
        return
    names = ", ".join(sorted(set(slab.symbols[found])))
    top = slab.positions[~(bonded | tagged), 2].max(initial=-np.inf) - LAYER_GAP_A
    low = int((slab.positions[found, 2] < top).sum())
    where = f", {low} of them below the topmost atoms" if low else ""
    raise SlabError(
        "has_adsorbate",
        f"the surface already carries {len(found)} atoms of an adsorbate "
        f"({names}){where}; give the clean slab",
    )


def _tagged_as_adsorbate(slab: Atoms, layer: NDArray[np.int_]) -> NDArray[np.bool_]:
    """Return a mask of the atoms in the top layer that tags call an adsorbate."""
    tags, top = slab.get_tags(), layer == layer.max()
    if layer.max() == 0 or np.ptp(tags) == 0:
        return np.zeros(len(tags), dtype=bool)
    bottom = tags[layer == 0]
    oc20 = bool((bottom == 0).all()) and set(tags) == {0, 1, 2}
    ase_build = bool((bottom > 1).all())
    marked = (tags == 2) if oc20 else (tags == 0) if ase_build else np.zeros_like(top)
    marked = marked & top
    # one atom among others of its layer is a dopant that somebody marked
    is_alone = bool((marked == top).all())
    nonmetal = np.isin(slab.numbers, sorted(NONMETALS))
    return np.asarray(marked & (nonmetal | is_alone), dtype=bool)


MIN_VACUUM_A = 6.0
"""Wider than any gap inside a layered crystal, narrower than any useful vacuum."""
ADDED_VACUUM_A = 15.0
"""Given to slabs whose normal direction was not periodic and has no room."""
THIN_VACUUM_A = 10.0


@dataclass(frozen=True, eq=False)
class Slab:
    """A slab ready to receive an adsorbate on its upper side."""

    atoms: Atoms
    layer: NDArray[np.int_]
    """Layer of every atom, 0 at the bottom."""
    surface: NDArray[np.int_]
    """Indices of the atoms that an adsorbate from above can touch."""
    preparation: tuple[str, ...] = ()
    """What was done to the structure as given, in words for its table row."""
    warnings: tuple[str, ...] = ()
    """What a reader of its numbers must know about the structure."""

    @property
    def n_layers(self) -> int:
        """Return the number of atomic layers."""
        return int(self.layer.max()) + 1


def prepare_slab(atoms: Atoms, *, adsorbate: str = "O") -> Slab:
    """Return the slab with its surface up, tagged and fixed; the input is not changed.

    Args:
        atoms: a slab, free along one cell vector.
        adsorbate: symbol of the atom that will bind; its size decides what is surface.

    Raises:
        SlabError: not a slab with one free surface to adsorb on.
    """
    check_structure(atoms)
    upright = _upright(atoms, _vacuum_axis(atoms))
    slab = upright.atoms
    layer = layers(slab.positions[:, 2])
    refuse_adsorbate(slab, layer)
    surface = exposed_atoms(slab, adsorbate=adsorbate)
    tagged = _tag(slab, layer, surface)
    held = _fix(slab, layer)
    if set(np.flatnonzero(layer == layer.max())) <= held_atoms(slab):
        raise SlabError(
            "surface_fixed",
            "all atoms of the top layer are fixed; free them or turn the slab over",
        )
    done = (*upright.done, tagged, held)
    return Slab(slab, layer, surface, done, upright.warnings)


def _tag(slab: Atoms, layer: NDArray[np.int_], surface: NDArray[np.int_]) -> str:
    """Set OC20's tags in place unless they are there, and return what was done."""
    given = slab.get_tags()
    # tags that mark a dopant, or half of a surface, say nothing about what lies beneath
    covers = not given[layer == 0].any() and bool((given[surface] == 1).all())
    if set(given) == {0, 1} and covers:
        return f"tags kept: {int(given.sum())} surface atoms"
    slab.set_tags(np.isin(np.arange(len(slab)), surface).astype(int))
    why = "were missing" if not given.any() else "were not OC20's"
    return f"tags {why}: {len(surface)} surface atoms found"


def _fix(slab: Atoms, layer: NDArray[np.int_]) -> str:
    """Fix the lower half in place unless constraints are there; say what was done."""
    held, partly = held_atoms(slab), partly_held_atoms(slab)
    if held or partly:
        some = f", {len(partly)} partly" if partly else ""
        return f"constraints kept: {len(held)} of {len(slab)} atoms fixed{some}"
    # One layer cannot be split in two: it stays free.
    empty = "constraints of the file hold no atom; " if slab.constraints else ""
    n_layers = int(layer.max()) + 1
    slab.set_constraint(FixAtoms(mask=layer < n_layers // 2))
    if n_layers == 1:
        return f"{empty}nothing fixed: one layer"
    return f"{empty}fixed the lower {n_layers // 2} of {n_layers} layers"


def _vacuum_axis(atoms: Atoms) -> int:
    """Return the one cell axis along which the structure is interrupted by vacuum."""
    open_axes = vacuum_axes(atoms)
    if not open_axes:
        raise SlabError(
            "no_surface",
            f"no vacuum of {MIN_VACUUM_A:g} Å or more along any cell vector: this is a "
            "bulk; cut slabs from it with --miller, for instance --miller 111",
        )
    if len(open_axes) > 1:
        flags = " ".join("TF"[not periodic] for periodic in atoms.pbc)
        raise SlabError(
            "no_surface",
            f"open along {len(open_axes)} cell vectors (pbc {flags}): a molecule or a "
            "wire, not a slab; a slab is periodic along two directions",
        )
    return open_axes[0]


def vacuum_axes(atoms: Atoms) -> list[int]:
    """Return the cell axes that are not periodic or cross 6 Å and more of nothing."""
    complete = atoms.cell.complete()
    volume = abs(np.linalg.det(complete.array))
    open_axes = []
    for axis in range(3):
        base = np.cross(complete[axis - 2], complete[axis - 1])
        height = volume / np.linalg.norm(base)
        if not atoms.pbc[axis] or _largest_gap(atoms, axis)[0] * height > MIN_VACUUM_A:
            open_axes.append(axis)
    return open_axes


def _largest_gap(atoms: Atoms, axis: int) -> tuple[float, float]:
    """Return width and upper end of the largest empty fractional interval."""
    scaled = np.sort(atoms.cell.complete().scaled_positions(atoms.positions)[:, axis])
    scaled = np.sort(scaled % 1.0)
    widths = np.diff(np.append(scaled, scaled[0] + 1.0))
    widest = int(widths.argmax())
    return float(widths[widest]), float(scaled[(widest + 1) % len(scaled)])


def _upright(atoms: Atoms, axis: int) -> Upright:
    """Return a whole, periodic slab with the normal along +z, and what was done."""
    slab, done = atoms.copy(), []
    slab.calc = None
    periodic = bool(slab.pbc[axis])
    if periodic and _unwrap(slab, axis):
        done.append("joined across the cell boundary")
    try:
        turned = turn_upright(slab, axis)
    except ConstraintError as error:
        raise SlabError("unsupported_constraint", str(error)) from error
    slab, done = turned.atoms, [*done, *turned.done]
    needed = np.ptp(slab.positions[:, 2]) + ADDED_VACUUM_A
    if not periodic:
        done.append("made periodic along its normal")
    if not periodic and slab.cell[2, 2] < needed:
        slab.cell[2] *= needed / slab.cell[2, 2]
        done.append(f"{ADDED_VACUUM_A:g} Å of vacuum added")
    slab.pbc = True
    vacuum = slab.cell[2, 2] - float(np.ptp(slab.positions[:, 2]))
    thin = f"{vacuum:.1f} Å of vacuum: under {THIN_VACUUM_A:g} Å slabs feel each other"
    warnings = [*turned.warnings] + ([thin] if vacuum < THIN_VACUUM_A else [])
    return Upright(slab, tuple(done), tuple(warnings))


def _unwrap(slab: Atoms, axis: int) -> bool:
    """Join, in place, a slab that the cell boundary cuts in two; say whether it did."""
    _, start = _largest_gap(slab, axis)
    scaled = slab.cell.scaled_positions(slab.positions)[:, axis]
    # Round-off may put the lowest atom just under the start: it must not jump up.
    images = np.floor(scaled - start + 1e-6)
    cut = len(set(images)) > 1
    images -= 0.0 if cut else images.min()
    slab.positions -= images[:, None] * slab.cell[axis]
    return cut


def normal_axis(atoms: Atoms) -> int:
    """Return the cell vector that leaves the surface, from 0.

    It is the one along which there is vacuum or no periodicity; the third where this
    is no slab, that is, where there are none or several.
    """
    open_axes = vacuum_axes(atoms)
    return open_axes[0] if len(open_axes) == 1 else 2


def surface_normal(atoms: Atoms) -> Float[np.ndarray, " 3"]:
    """Return the unit vector across the surface, on the side of its cell vector."""
    axis = normal_axis(atoms)
    cell = atoms.cell.complete().array
    normal = np.cross(cell[axis - 2], cell[axis - 1])
    normal /= np.linalg.norm(normal)
    return np.asarray(normal * np.sign(normal @ cell[axis]))


def heights(atoms: Atoms) -> Float[np.ndarray, " atom"]:
    """Return how far in Å atoms are along the normal above the widest gap.

    So a slab that the cell boundary cuts in two is whole.
    """
    axis = normal_axis(atoms)
    cell = atoms.cell.complete()
    thickness = abs(float(surface_normal(atoms) @ cell.array[axis]))
    scaled = cell.scaled_positions(atoms.positions)[:, axis]
    if atoms.pbc[axis]:
        scaled = scaled % 1.0
        order = np.sort(scaled)
        gaps = np.diff(order, append=order[0] + 1.0)
        above = order[(int(gaps.argmax()) + 1) % len(order)]
        # round-off may not send the lowest atom to the top
        scaled = (scaled - above + 1e-6) % 1.0
    return np.asarray((scaled - scaled.min()) * thickness)
