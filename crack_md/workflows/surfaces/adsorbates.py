"""Adsorbates by name, by molecule, or from a file, and which of their atoms binds."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import ase.io
import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import atomic_numbers

from crack_md.errors import ConfigError
from crack_md.workflows.orr.references import gas_molecules

AXIAL_A = 0.1
"""An adsorbate narrower than this looks the same from all sides."""


@dataclass(frozen=True, eq=False)
class Adsorbate:
    """A species and its atoms around the one that binds."""

    name: str
    atoms: Atoms
    """The first atom binds and lies at the origin; the surface is below."""

    @property
    def binding(self) -> str:
        """Return the symbol of the atom that binds."""
        return str(self.atoms.symbols[0])

    @property
    def composition(self) -> dict[str, int]:
        """Return how many atoms of each element it has."""
        return dict(Counter(str(symbol) for symbol in self.atoms.symbols))

    @property
    def reference(self) -> dict[str, float]:
        """Return the gas molecules it is made of: O is H2O - H2."""
        return gas_molecules(self.composition)

    @property
    def is_axial(self) -> bool:
        """Return whether turning it about the surface normal changes nothing."""
        width = np.hypot(self.atoms.positions[:, 0], self.atoms.positions[:, 1])
        return bool((width < AXIAL_A).all())

    @property
    def key(self) -> str:
        """Return what tells it from others of its name: a hash of its geometry."""
        if self.name in ADSORBATES:
            return self.name
        geometry = np.round(self.atoms.positions, 4) + 0.0
        text = f"{self.atoms.numbers.tolist()}{geometry.tolist()}"
        return f"{self.name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"


# O-H 0.98 and O-O 1.44 Å, O-O-H 101°. OH leans, because an upright one would stay
# upright by symmetry where it would rather lie.
ADSORBATES: Mapping[str, Adsorbate] = MappingProxyType(
    {
        "O": Adsorbate("O", Atoms("O")),
        "OH": Adsorbate("OH", Atoms("OH", [[0, 0, 0], [0.69, 0, 0.69]])),
        "OOH": Adsorbate(
            "OOH", Atoms("O2H", [[0, 0, 0], [1.18, 0, 0.82], [0.79, 0, 1.72]])
        ),
    }
)


def parse_adsorbates(text: str) -> tuple[Adsorbate, ...]:
    """Return the adsorbates in ``O,OH,CO:C,mine.xyz:0``, each once.

    Raises:
        ConfigError: one is unknown, cannot be read, or does not say which atom binds.
    """
    names = dict.fromkeys(part.strip() for part in text.split(",") if part.strip())
    if not names:
        raise ConfigError("no adsorbate given; expected for instance O or O,OH,OOH")
    adsorbates = tuple(adsorbate_named(name) for name in names)
    repeated = [n for n, c in Counter(a.name for a in adsorbates).items() if c > 1]
    if repeated:
        raise ConfigError(
            f"several adsorbates are called {', '.join(repeated)}; screen them one by "
            "one, or rename the file"
        )
    return adsorbates


def adsorbate_named(text: str) -> Adsorbate:
    """Return O, OH, OOH, an element, a molecule that ASE knows, or one from a file.

    Args:
        text: the name or file, with the atom that binds after a colon: ``CO:C`` by
            element, ``CH3OH:1`` by number, from 0.

    Raises:
        ConfigError: as `parse_adsorbates`.
    """
    if text in ADSORBATES:
        return ADSORBATES[text]
    source, _, binding = text.rpartition(":") if ":" in text else (text, "", "")
    atoms, name = _species(source)
    index = _binding_atom(atoms, binding, name)
    adsorbate = Adsorbate(name, _upright(atoms, index))
    gas_molecules(adsorbate.composition)  # refuses elements that have no reference
    return adsorbate


def _species(source: str) -> tuple[Atoms, str]:
    if source in ADSORBATES:
        return ADSORBATES[source].atoms.copy(), source
    if source in g2.names:
        return molecule(source), source
    if source in atomic_numbers and source != "X":
        return Atoms(source), source
    path = Path(source)
    if path.suffix and path.exists():
        try:
            atoms = ase.io.read(path)
            assert isinstance(atoms, Atoms)
        except Exception as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ConfigError(
                f"cannot read the adsorbate '{path}': {reason}"
            ) from error
        if len(atoms) == 0:
            raise ConfigError(f"the adsorbate '{path}' has no atoms")
        return Atoms(atoms.numbers, atoms.positions), path.stem
    raise ConfigError(
        f"unknown adsorbate '{source}'; expected {', '.join(ADSORBATES)}, an element, "
        "a molecule that ASE knows with the atom that binds (CO:C), or a structure "
        "file (mine.xyz:0)"
    )


def _binding_atom(atoms: Atoms, binding: str, name: str) -> int:
    """Return the index of the atom that binds."""
    symbols = [str(symbol) for symbol in atoms.symbols]
    shown = ", ".join(f"{index} {symbol}" for index, symbol in enumerate(symbols))
    if not binding and len(set(symbols)) == 1:
        return 0
    if binding.isdigit() and int(binding) < len(symbols):
        return int(binding)
    if symbols.count(binding) == 1:
        return symbols.index(binding)
    if not binding:
        reason = f"which atom of {name} binds? Say it after a colon"
    else:
        reason = f"'{binding}' does not name one atom of {name}"
    raise ConfigError(f"{reason}; its atoms are {shown}: for instance {name}:0")


def _upright(atoms: Atoms, index: int) -> Atoms:
    """Return the molecule with its binding atom first, at the origin, others above."""
    order = [index, *(other for other in range(len(atoms)) if other != index)]
    upright = Atoms(atoms.numbers[order], atoms.positions[order])
    upright.positions -= upright.positions[0]
    if len(upright) > 1:
        middle = upright.positions[1:].mean(axis=0)
        # A center of a flat or round molecule has no side to turn up.
        if np.linalg.norm(middle) > AXIAL_A:
            upright.rotate(middle, "z")
    return upright
