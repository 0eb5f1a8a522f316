"""Bulk metals by the model at hand, and the potentials at which their atoms dissolve.

An atom that leaves the surface of a slab for its bulk metal costs

    ΔE = E(slab without it) + E(bulk metal)/atom - E(slab)

by the model; from the bulk metal it dissolves at its standard potential U°, M → M^n+ +
n e-, which is tabulated, so that no ion is computed. From the surface it dissolves at

    U = U° + ΔE / n e

(J. Greeley and J. K. Nørskov, Electrochim. Acta 52, 5829 (2007)), pH does not matter
where no oxygen takes part. Entropies of the solid are left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import BaseCalculator
from ase.data import atomic_numbers, covalent_radii, reference_states

from crack_md.workflows.relax.relax import best_constant

Lattice = Literal["fcc", "hcp", "bcc"]


class Electrode(NamedTuple):
    """M^n+ + n e- → M in water at 298 K, against the standard hydrogen electrode."""

    potential_V: float
    electrons: int


ELECTRODES: Mapping[str, Electrode] = MappingProxyType(
    {
        "Ag": Electrode(0.7996, 1),
        "Al": Electrode(-1.662, 3),
        "Au": Electrode(1.498, 3),
        "Bi": Electrode(0.308, 3),
        "Cd": Electrode(-0.4030, 2),
        "Co": Electrode(-0.28, 2),
        "Cr": Electrode(-0.913, 2),
        "Cu": Electrode(0.3419, 2),
        "Fe": Electrode(-0.447, 2),
        "Ga": Electrode(-0.549, 3),
        "In": Electrode(-0.3382, 3),
        "Ir": Electrode(1.156, 3),
        "Mn": Electrode(-1.185, 2),
        "Ni": Electrode(-0.257, 2),
        "Pb": Electrode(-0.1262, 2),
        "Pd": Electrode(0.951, 2),
        "Pt": Electrode(1.18, 2),
        "Re": Electrode(0.300, 3),
        "Rh": Electrode(0.758, 3),
        "Ru": Electrode(0.455, 2),
        "Sc": Electrode(-2.077, 3),
        "Sn": Electrode(-0.1375, 2),
        "Ti": Electrode(-1.630, 2),
        "Y": Electrode(-2.372, 3),
        "Zn": Electrode(-0.7618, 2),
    }
)
ELECTRODES_SOURCE = (
    "standard potentials of M^n+ + n e- → M at 298 K: CRC Handbook of Chemistry and "
    "Physics, Electrochemical Series (P. Vanýsek)"
)


def dissolution_potential(symbol: str, removal_eV: float) -> float | None:
    """Return the potential in V at which a surface atom dissolves; None if not known.

    Args:
        symbol: of the atom.
        removal_eV: ΔE of taking it from the surface into its bulk metal.
    """
    electrode = ELECTRODES.get(symbol)
    if electrode is None:
        return None
    return electrode.potential_V + removal_eV / electrode.electrons


@dataclass(frozen=True)
class Metal:
    """An element as the model has it, in its own lattice and in close packing."""

    symbol: str
    lattice: str
    """``fcc``, ``hcp`` or ``bcc``: that of nature, fcc where it is none of these."""
    is_natural: bool
    energy_eV: float
    """Per atom in that lattice."""
    packed_eV: Mapping[str, float]
    """Per atom as fcc and as hcp."""
    neighbor_A: float
    """Between neighbors in the fcc crystal."""


def relax_metal(symbol: str, calculator: BaseCalculator) -> Metal:
    """Return the energies of an element in the lattices that alloys are compared with.

    Lattice constants are the model's own; c/a of hcp is that of nature, or ideal.
    """
    state: dict[str, Any] = dict(reference_states[atomic_numbers[symbol]] or {})
    natural = str(state.get("symmetry"))
    lattice = natural if natural in ("fcc", "hcp", "bcc") else "fcc"
    volume = _expected_volume(symbol, natural)
    ratio = float(state.get("c/a") or 0.0) if natural == "hcp" else 0.0
    crystals = {
        name: _relax(_builder(symbol, name, ratio), volume, calculator)
        for name in dict.fromkeys(("fcc", "hcp", lattice))
    }
    energies = {
        name: float(crystal.get_potential_energy()) / len(crystal)
        for name, crystal in crystals.items()
    }
    return Metal(
        symbol,
        lattice,
        lattice == natural,
        energies[lattice],
        MappingProxyType({name: energies[name] for name in ("fcc", "hcp")}),
        float(crystals["fcc"].cell.lengths()[0]),
    )


def _expected_volume(symbol: str, natural: str) -> float:
    """Return about how many Å³ an atom takes."""
    if natural in ("fcc", "hcp", "bcc"):
        crystal = bulk(symbol)
        return float(crystal.get_volume()) / len(crystal)
    return float((2 * covalent_radii[atomic_numbers[symbol]]) ** 3 / np.sqrt(2))


def _builder(symbol: str, lattice: str, ratio: float) -> Callable[[float], Atoms]:
    if lattice == "hcp":
        return lambda a: bulk(symbol, "hcp", a=a, c=a * (ratio or np.sqrt(8 / 3)))
    return lambda a: bulk(symbol, lattice, a=a)


def _relax(
    build: Callable[[float], Atoms], volume: float, calculator: BaseCalculator
) -> Atoms:
    """Return the crystal at the constant of lowest energy, with its calculator."""
    unit = build(1.0)
    expected = float((volume * len(unit) / unit.get_volume()) ** (1 / 3))
    crystal = build(best_constant(build, expected, calculator))
    crystal.calc = calculator
    return crystal
