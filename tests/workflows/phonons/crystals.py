"""Crystals whose phonons are known in closed form."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.neighborlist import neighbor_list

STIFFNESS = 2.0  # eV/Å²


class SpringCrystal(Calculator):
    """Springs along the bonds of nearest neighbors: E = ½ k Σ_bonds [R̂ (u_j − u_i)]².

    u is measured from the nearest site, and sites are where the cell vectors, divided
    by ``grid``, lead. With ``weights`` the forces on an element are multiplied by a
    number: no energy has such forces.
    """

    implemented_properties = ("energy", "forces")

    def __init__(
        self,
        crystal: Atoms,
        *,
        grid: int = 1,
        weights: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.lattice = crystal.cell.array / grid
        self.cutoff = bond_length(crystal)
        self.weights = weights

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        ideal = atoms.copy()
        sites = np.rint(atoms.positions @ np.linalg.inv(self.lattice))
        ideal.positions = sites @ self.lattice
        shift = atoms.positions - ideal.positions
        first, second, bond = neighbor_list("ijD", ideal, self.cutoff)
        along = bond / np.linalg.norm(bond, axis=1, keepdims=True)
        stretch = ((shift[second] - shift[first]) * along).sum(axis=1)
        forces = np.zeros_like(shift)
        np.add.at(forces, first, STIFFNESS * stretch[:, None] * along)
        weight = [self.weights.get(symbol, 1.0) for symbol in atoms.symbols]
        self.results = {
            "energy": 0.25 * STIFFNESS * float((stretch**2).sum()),
            "forces": np.array(weight)[:, None] * forces,
        }


def bond_length(primitive: Atoms) -> float:
    """Return a cutoff between first and second neighbors in Å."""
    distances = neighbor_list("d", primitive, 1.2 * primitive.cell.lengths().min())
    return float(distances.min() * 1.1)


def exact_frequencies(crystal: Atoms, q: np.ndarray) -> np.ndarray:
    """Return THz of springs at fractional (n, 3) q, (q, mode), for any masses.

    D_ab(q) = k (m_a m_b)^−½ Σ_R R̂R̂ᵀ [δ_ab − exp(2πi q·S_R)], over the bonds R from a,
    and in its second part over those that end on b in cell S_R.
    """
    first, second, bond, image = neighbor_list("ijDS", crystal, bond_length(crystal))
    along = bond / np.linalg.norm(bond, axis=1, keepdims=True)
    projections = np.einsum("bx,by->bxy", along, along)
    phases = np.exp(2j * np.pi * q @ image.T)
    matrices = np.zeros((len(q), len(crystal), 3, len(crystal), 3), dtype=complex)
    for k, (a, b) in enumerate(zip(first, second, strict=True)):
        matrices[:, a, :, a] += projections[k]
        matrices[:, a, :, b] -= phases[:, k, None, None] * projections[k]
    size = 3 * len(crystal)
    weights = np.repeat(crystal.get_masses() ** -0.5, 3)
    matrices = STIFFNESS * matrices.reshape(len(q), size, size)
    squares = np.linalg.eigvalsh(weights[:, None] * matrices * weights)
    per_time_unit = np.sqrt(np.clip(squares, 0, None)) / (2 * np.pi)
    return np.asarray(per_time_unit * units.fs * 1000.0)


def platinum() -> Atoms:
    return bulk("Pt", "fcc", a=3.9)
