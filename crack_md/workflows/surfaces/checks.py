"""What is no clean slab, and why: every refusal has a status for its table row."""

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from crack_md.errors import StructureError

LAYER_GAP_A = 0.4
"""Atoms closer than this along the normal share a layer; (211) layers are 0.7 apart."""
OVERLAP_A = 0.7
"""Nuclei nearer than this (H-H in H2 is 0.74 Å) mean a broken structure."""
OVERLAP_SCALE = 0.5
"""So do atoms nearer than half the sum of their covalent radii."""
NONMETALS = frozenset(["H", "C", "N", "O", "F", "P", "S", "Cl", "Se", "Br", "I"])


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
    """Raise SlabError("has_adsorbate") when something sits on the surface already.

    Two signs: non-metal atoms on top of a slab whose lower half has none of their
    element (so oxide slabs pass), and tags that OC20 or ASE give to adsorbates.
    """
    symbols = np.array(slab.get_chemical_symbols())
    heights = slab.positions[:, 2]
    low = heights < heights.mean()
    foreign = np.isin(symbols, sorted(NONMETALS - set(symbols[low]))) & ~low
    substrate = heights[~foreign]
    on_top = foreign & (heights > substrate.max() - LAYER_GAP_A)
    tagged = _tagged_as_adsorbate(slab.get_tags(), layer)
    foreign_atoms = np.flatnonzero(on_top | tagged)
    if len(foreign_atoms):
        names = ", ".join(sorted(set(symbols[foreign_atoms])))
        raise SlabError(
            "has_adsorbate",
            f"the surface already carries {len(foreign_atoms)} atoms of an adsorbate "
            f"({names}); give the clean slab",
        )


def _tagged_as_adsorbate(
    tags: NDArray[np.int_], layer: NDArray[np.int_]
) -> NDArray[np.bool_]:
    """Return a mask of the atoms in the top layer that tags call an adsorbate."""
    top = layer == layer.max()
    if layer.max() == 0 or np.ptp(tags) == 0:
        return np.zeros(len(tags), dtype=bool)
    bottom = tags[layer == 0]
    oc20 = bool((bottom == 0).all()) and set(tags) == {0, 1, 2}
    ase_build = bool((bottom > 1).all())
    marked = (tags == 2) if oc20 else (tags == 0) if ase_build else np.zeros_like(top)
    return np.asarray(marked & top, dtype=bool)
