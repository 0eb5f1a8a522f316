"""Crystals to cut slabs from: of elements in given structures, or read from files.

    pure     the element
    L12      A3B (Cu3Au), either element of a pair as A
    L10      AB (CuAu), elements in alternating (001) planes
    random   sites shared by elements in given proportions
    skin     L12, and all atoms of the surface are A

all on the fcc lattice. Sites that several elements share, or that are vacant in part,
carry a placeholder until atoms are drawn for a cell: symmetry, planes and layers are
then those of the average crystal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.formula import Formula

from crack_md.errors import ConfigError, StructureError
from crack_md.structures import StructureEntry, read_entries
from crack_md.workflows.relax.relax import measured_fcc_constant

STRUCTURES = ("pure", "L12", "L10", "random", "skin")
PLACEHOLDERS = ("He", "Ne", "Ar", "Kr", "Xe", "Rn", *chemical_symbols[89:104])
"""For sites that are shared; the first ones that a crystal does not hold are taken."""
VACANCY = "X"
Shares = Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Crystal:
    """A bulk crystal, and which of its sites are shared."""

    name: str
    structure: str
    """One of `STRUCTURES`, or what kind of file it was read from."""
    atoms: Atoms
    sites: Mapping[str, Shares] = field(default_factory=dict)
    """Elements by share of the sites with a placeholder; what lacks to 1 is vacant."""
    tops: tuple[str | None, ...] = (None,)
    """One slab for each: as it is cut (None), or under a skin of that element."""
    is_cubic: bool = True
    """Whether the cell keeps its shape when it relaxes."""
    is_from_file: bool = False
    """Whether the cell is that of a file, and not Vegard's mean."""

    @property
    def elements(self) -> set[str]:
        """Return all symbols that slabs of the crystal can hold."""
        shared = {symbol for shares in self.sites.values() for symbol in shares}
        skins = {top for top in self.tops if top is not None}
        return (set(self.atoms.symbols) - set(self.sites)) | shared | skins

    def draw(self, atoms: Atoms, random: np.random.Generator) -> Atoms:
        """Return a cell of this crystal with elements drawn for its shared sites.

        Their numbers are as near to the shares as whole atoms come, with the largest
        remainders rounded up; which atom is which is by chance.

        Raises:
            StructureError: the cell is too small for an atom of each.
        """
        drawn = atoms.copy()
        for placeholder, shares in self.sites.items():
            places = np.flatnonzero(atoms.symbols == placeholder)
            counts = whole_numbers(shares, len(places))
            lacking = [symbol for symbol in shares if counts[symbol] == 0]
            if lacking:
                raise StructureError(
                    f"{', '.join(lacking)}: the share rounds to no atom among "
                    f"{len(places)} sites; give a larger --width or --thickness"
                )
            symbols = [s for s, count in counts.items() for _ in range(count)]
            for place, symbol in zip(random.permutation(places), symbols, strict=True):
                drawn.symbols[place] = symbol
        return drawn[drawn.numbers > 0]


def whole_numbers(shares: Shares, total: int) -> dict[str, int]:
    """Return atoms by symbol, vacancies as ``X``: largest remainders are rounded up."""
    vacant = 1 - sum(shares.values())
    parts = {**shares, **({VACANCY: vacant} if vacant > 1e-3 else {})}
    exact = {symbol: share * total for symbol, share in parts.items()}
    counts = {symbol: int(value + 1e-9) for symbol, value in exact.items()}
    by_rest = sorted(exact, key=lambda symbol: counts[symbol] - exact[symbol])
    for symbol in by_rest[: total - sum(counts.values())]:
        counts[symbol] += 1
    return counts


def fcc_constant(shares: Shares) -> float:
    """Return Vegard's mean in Å of what the elements would have as fcc crystals."""
    return sum(
        share * measured_fcc_constant(symbol) for symbol, share in shares.items()
    )


def alloy_crystals(
    elements: Sequence[str],
    structures: Sequence[str],
    *,
    compositions: Sequence[str] = (),
) -> tuple[Crystal, ...]:
    """Return the crystals of all combinations of elements, at Vegard's constant.

    Args:
        elements: symbols of metals.
        structures: which of `STRUCTURES`.
        compositions: of random alloys, as formulas such as ``Pt50Ni30Co20``; equal
            shares of all elements where left out.

    Raises:
        ConfigError: an element, structure or composition is unknown, or there are too
            few elements for a structure.
    """
    _check(elements, structures, compositions)
    found: list[Crystal] = []
    if "pure" in structures:
        found += [_cube("pure", symbol, [symbol] * 4) for symbol in elements]
    if "L12" in structures or "skin" in structures:
        for host, guest in permutations(elements, 2):
            tops = (None,) * ("L12" in structures) + (host,) * ("skin" in structures)
            cube = _cube("L12", f"{host}3{guest}", [guest, host, host, host])
            found.append(replace(cube, tops=tops))
    if "L10" in structures:
        for first, second in combinations(elements, 2):
            cube = _cube("L10", first + second, [first, first, second, second])
            found.append(replace(cube, is_cubic=False))
    if "random" in structures:
        chosen = compositions or ("".join(elements),)
        found += [_shared(Formula(text).count()) for text in chosen]
    return tuple(found)


def _check(
    elements: Sequence[str], structures: Sequence[str], compositions: Sequence[str]
) -> None:
    for symbol in elements:
        if symbol not in atomic_numbers or symbol == VACANCY:
            raise ConfigError(f"--elements: '{symbol}' is no element; give Pt,Ni,Co")
    if len(set(elements)) < len(elements):
        raise ConfigError("--elements names an element twice")
    for name in structures:
        if name not in STRUCTURES:
            raise ConfigError(
                f"--structures: unknown '{name}'; expected some of: "
                f"{', '.join(STRUCTURES)}"
            )
    needy = [name for name in structures if name != "pure"]
    if len(elements) < 2 and needy and not compositions:
        raise ConfigError(f"--structures {','.join(needy)} needs two elements or more")
    if compositions and "random" not in structures:
        raise ConfigError("--compositions is about --structures random: add it there")
    for text in compositions:
        try:
            counts = Formula(text).count()
            counted = set(counts)
        except ValueError as error:
            raise ConfigError(
                f"--compositions: cannot read '{text}'; expected a formula such as "
                "Pt3Ni or Pt50Ni30Co20"
            ) from error
        if not counts or not all(counts.values()):
            raise ConfigError(
                f"--compositions: '{text}' has no atom of some element; expected a "
                "formula such as Pt3Ni or Pt50Ni30Co20"
            )
        if not counted <= set(elements):
            other = ", ".join(sorted(counted - set(elements)))
            raise ConfigError(
                f"--compositions {text} holds {other}, which --elements does not name"
            )


def _cube(
    structure: str, name: str, symbols: Sequence[str], shares: Shares | None = None
) -> Crystal:
    """Return the cubic cell of an fcc lattice, its atoms at 000, ½½0, ½0½ and 0½½."""
    parts = shares or {symbol: symbols.count(symbol) / 4 for symbol in symbols}
    corners = [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]
    cell = [fcc_constant(parts)] * 3
    atoms = Atoms(list(symbols), scaled_positions=corners, cell=cell, pbc=True)
    return Crystal(name, structure, atoms)


def _shared(counts: Mapping[str, int]) -> Crystal:
    """Return an fcc crystal whose sites elements share."""
    shares = {symbol: n / sum(counts.values()) for symbol, n in counts.items()}
    name = "".join(s + (str(n) if n > 1 else "") for s, n in counts.items())
    placeholder = PLACEHOLDERS[0]
    cube = _cube("random", name, [placeholder] * 4, shares)
    return replace(cube, sites={placeholder: shares})


def read_crystals(path: Path) -> tuple[Crystal | StructureEntry, ...]:
    """Return the crystals of a file or folder, CIF with partial occupancies too.

    What cannot be read stays an entry that says why.

    Raises:
        DataError: the file is missing, or nothing that ASE reads.
    """
    return tuple(map(_of_entry, read_entries(path, frames="last")))


def _of_entry(entry: StructureEntry) -> Crystal | StructureEntry:
    if entry.average is None:
        if entry.atoms is None:
            return entry
        return Crystal(
            entry.name, "bulk", entry.atoms, is_cubic=False, is_from_file=True
        )
    atoms = entry.average.copy()
    table, kinds = atoms.info["occupancy"], atoms.arrays["spacegroup_kinds"]
    free = [symbol for symbol in PLACEHOLDERS if symbol not in set(atoms.symbols)]
    sites: dict[str, Shares] = {}
    for key, shares in table.items():
        members = np.flatnonzero(kinds == int(key))
        if len(members) == 0 or sum(shares.values()) == max(shares.values()) == 1:
            continue
        if not _are_shares(shares) or len(sites) == len(free):
            shown = ", ".join(f"{symbol} {share}" for symbol, share in shares.items())
            error = f"cannot draw atoms for a site with {shown}; expected elements "
            return replace(entry, error=f"{error}with shares that add up to 1 at most")
        placeholder = free[len(sites)]
        atoms.symbols[members] = placeholder
        sites[placeholder] = dict(shares)
    return Crystal(entry.name, "random", atoms, sites, is_from_file=True)


def _are_shares(shares: Mapping[str, object]) -> bool:
    """Return whether a damaged file could not have said this."""
    values = [v for v in shares.values() if isinstance(v, int | float) and v > 0]
    known = all(s in atomic_numbers and s != VACANCY for s in shares)
    return known and len(values) == len(shares) and sum(values) < 1 + 1e-3
