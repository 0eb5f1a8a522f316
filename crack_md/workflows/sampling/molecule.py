"""What is known of a molecule, and its observables: values per frame.

An observable has one value per frame or several that symmetry or definition makes
alike: all C–H distances, the three hydrogens of a methyl group. These are pooled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float, Int

from crack_md.data.torsions import (
    BondGraph,
    Positions,
    Torsion,
    dihedral_angles,
    distances,
    find_bonds,
    find_torsions,
)

Kind = Literal["energy", "distance", "torsion"]
Values = Float[np.ndarray, "frame member"]
ALL_PAIRS = "all pairs"
DISTANCE_BIN_A = 0.02
TORSION_BINS = 36
ENERGY_BINS = 50


@dataclass(frozen=True)
class Observable:
    """One quantity of the molecule in the reference and in the sample."""

    name: str
    kind: Kind
    reference: Values
    sample: Float[np.ndarray, "sample member"]


@dataclass(frozen=True)
class MoleculeTopology:
    """What is found out about a molecule once: bonds, torsions, mirror symmetry."""

    graph: BondGraph
    torsions: tuple[Torsion, ...]
    pairs: dict[str, Int[np.ndarray, "pair 2"]]
    """By elements, such as C–H; each pair of atoms once, none with itself."""

    @property
    def is_achiral(self) -> bool:
        """Return whether a frame and its mirror image are equally probable."""
        return self.graph.is_achiral


def find_molecule(
    numbers: Int[np.ndarray, " atom"], frames: Positions
) -> MoleculeTopology:
    """Return bonds, torsions and pairs of a molecule.

    Raises:
        StructureError: the atoms are not those of one molecule.
    """
    graph = find_bonds(numbers, frames)
    return MoleculeTopology(graph, find_torsions(graph, frames), _pairs(numbers))


def geometric_observables(
    molecule: MoleculeTopology,
    reference: Positions,
    sample: Float[np.ndarray, "sample atom 3"],
) -> Iterator[Observable]:
    """Yield all distances together, distances by elements, and torsions.

    Torsions of achiral molecules come with those of the mirror images.
    """
    for name, pairs in molecule.pairs.items():
        both = (distances(frames, pairs) for frames in (reference, sample))
        yield Observable(name, "distance", *both)
    for torsion in molecule.torsions:
        both = (
            torsion_angles(frames, torsion, mirrored=molecule.is_achiral)
            for frames in (reference, sample)
        )
        yield Observable(torsion.name, "torsion", *both)


def torsion_angles(frames: Positions, torsion: Torsion, *, mirrored: bool) -> Values:
    """Return the angles in degrees of all members, and of their mirror images."""
    angles = dihedral_angles(frames, torsion.atoms)
    return np.concatenate([angles, -angles], axis=1) if mirrored else angles


def monitors(
    molecule: MoleculeTopology, positions: Positions
) -> dict[str, Float[np.ndarray, " frame"]]:
    """Return what has to converge, by the name of the observable it stands for.

    One number per frame that is blind to what symmetry makes alike: cos nφ of an n-fold
    torsion, meaned over its members, sin nφ too where the molecule is chiral; and for
    distances the radius of gyration in Å.
    """
    arms = positions - positions.mean(axis=1, keepdims=True)
    found = {"radius of gyration": np.sqrt(np.mean(np.sum(arms**2, axis=-1), axis=1))}
    for torsion in molecule.torsions:
        angles = np.radians(dihedral_angles(positions, torsion.atoms))
        found[torsion.name] = np.cos(torsion.fold * angles).mean(axis=1)
        if not molecule.is_achiral:
            found[f"{torsion.name}, sine"] = np.sin(torsion.fold * angles).mean(axis=1)
    return found


def bin_edges(
    observable: Observable,
) -> Float[np.ndarray, " edge"]:
    """Return the edges of its bins; what lies outside counts to the first or last."""
    if observable.kind == "torsion":
        return np.linspace(-180.0, 180.0, TORSION_BINS + 1)
    values = observable.reference
    if observable.kind == "distance":
        low, high = values.min() - 0.2, values.max() + 0.2
        count = int(np.ceil((high - low) / DISTANCE_BIN_A))
        return low + DISTANCE_BIN_A * np.arange(count + 1)
    low, high = energy_window(values)
    return np.linspace(low, high, ENERGY_BINS + 1)


def energy_window(energies: Float[np.ndarray, "..."]) -> tuple[float, float]:
    """Return the 0.1 % quantile less σ, and the 99.9 % quantile plus 2σ.

    With σ the standard deviation; energies have a longer tail upwards. Of a molecule of
    oscillators at the same temperature, longer sampled, about one frame in 10 000 lies
    beyond.
    """
    low, high = np.quantile(energies, [0.001, 0.999])
    sigma = float(np.std(energies))
    return float(low) - sigma, float(high) + 2.0 * sigma


def _pairs(
    numbers: Int[np.ndarray, " atom"],
) -> dict[str, Int[np.ndarray, "pair 2"]]:
    every = np.stack(np.triu_indices(len(numbers), k=1), axis=1)
    # hydrocarbons first: C, H, then by name
    order = {"C": 0, "H": 1}
    elements = sorted(
        {chemical_symbols[number] for number in numbers},
        key=lambda symbol: (order.get(symbol, 2), symbol),
    )
    names = [
        "–".join(
            sorted(
                (chemical_symbols[numbers[i]], chemical_symbols[numbers[j]]),
                key=elements.index,
            )
        )
        for i, j in every
    ]
    found = {ALL_PAIRS: every}
    for name in sorted(set(names)):
        found[name] = every[[other == name for other in names]]
    return found
