"""What a model may be asked for, and how far its labels can be trusted.

A model that knows nickel and oxygen still answers for nickel oxide, or for OOH*, which
no training frame held: a number like any other. These limits travel in the model file,
and are rules on a structure that anybody can check by hand. Each rule becomes a ratio
that is above 1 beyond the limit. Clean metals and molecules without a metal are not
judged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from ase.formula import Formula
from ase.neighborlist import neighbor_list
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from crack_md.errors import CheckpointError
from crack_md.structures import NONMETALS

NEAR_SURFACE_A = 3.0
"""Depth of the first two layers of close-packed metals, 1.8 to 2.4 Å apart."""
BONDED = 1.25
"""Times the covalent radii: O–O of OOH* has 1.45 Å, and two O* are 2.5 Å apart."""
FAR_AWAY = 999.0
"""Ratio of a rule that has no measure: the adsorbate is another one."""


@dataclass(frozen=True)
class LabelSpread:
    """How far the teachers of a set of metals disagree about adsorption."""

    metals: frozenset[int]
    spread_eV: float


@dataclass(frozen=True)
class Limits:
    """What a model may be asked for; an empty field sets no limit.

    Raises:
        CheckpointError: a limit that is not positive, or an unknown element.
    """

    adsorbates: tuple[str, ...] = ()
    """Formulas such as OH."""
    largest_shares: Mapping[int, float] = field(default_factory=dict)
    """By atomic number, of the metal atoms near the surface."""
    smallest_area_A2: float = 0.0
    """Of surface for one adsorbate; ½ monolayer is 13.6 on Pt(111), 11.3 on Cu(111)."""
    most_oxygen_per_metal: float = np.inf
    doubtful_elements: Mapping[int, str] = field(default_factory=dict)
    """By atomic number, what is known of their errors."""
    label_spreads: tuple[LabelSpread, ...] = ()
    """A slab has that of the smallest set that holds all its metals."""

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        numbers = [*self.largest_shares, *self.doubtful_elements]
        numbers += [z for spread in self.label_spreads for z in spread.metals]
        for number in numbers:
            if not 0 < number < len(chemical_symbols):
                _refuse("atomic number", number, "1 to 118")
        for share in self.largest_shares.values():
            if not 0 < share <= 1:
                _refuse("largest share", share, "more than 0 and at most 1")
        for spread in self.label_spreads:
            if not 0 < spread.spread_eV < np.inf:
                _refuse("label spread", spread.spread_eV, "a positive number of eV")
        if not self.smallest_area_A2 >= 0:
            _refuse("smallest area", self.smallest_area_A2, "Å², not negative")
        if not self.most_oxygen_per_metal > 0:
            _refuse("most oxygen", self.most_oxygen_per_metal, "more than 0")

    def distance(self, atoms: Atoms) -> tuple[float, str]:
        """Return how far a structure is beyond the limits, and a sentence about it.

        Above 1 is beyond. The largest ratio of all rules is returned.
        """
        metal = ~np.isin(atoms.numbers, sorted(NONMETALS))
        if metal.all() or not metal.any():
            return 0.0, "no adsorbate on a metal"
        groups = bonded_groups(atoms[~metal])
        rules = [
            *self._adsorbate_rules(groups),
            *self._share_rules(atoms.numbers[metal][_near_surface(atoms, metal)]),
            self._area_rule(_surface_area(atoms), len(groups)),
            self._oxygen_rule(int((atoms.numbers == 8).sum()), int(metal.sum())),
        ]
        return max(rules, key=lambda rule: rule[0])

    def warnings(self, numbers: Sequence[int]) -> tuple[str, ...]:
        """Return what a reader must know about a structure with these elements."""
        return tuple(
            f"{chemical_symbols[z]}: {text}"
            for z, text in self.doubtful_elements.items()
            if z in set(numbers)
        )

    def label_spread(self, numbers: Sequence[int]) -> float | None:
        """Return the spread of the labels for these elements in eV.

        That of the smallest set that holds all metals; where none does, the largest of
        all; None without any spread.
        """
        if not self.label_spreads:
            return None
        metals = set(numbers) - NONMETALS
        found = [s for s in self.label_spreads if metals <= s.metals]
        if not found:
            return max(spread.spread_eV for spread in self.label_spreads)
        return min(found, key=lambda s: (len(s.metals), s.spread_eV)).spread_eV

    def plain(self) -> dict[str, Any]:
        """Return plain containers, for a model file and JSON; elements are symbols."""
        most = self.most_oxygen_per_metal
        return {
            "adsorbates": list(self.adsorbates),
            "largest_shares": _by_symbol(self.largest_shares),
            "smallest_area_A2": self.smallest_area_A2,
            **({"most_oxygen_per_metal": most} if np.isfinite(most) else {}),
            "doubtful_elements": _by_symbol(self.doubtful_elements),
            "label_spreads": [
                {
                    "metals": [chemical_symbols[z] for z in sorted(spread.metals)],
                    "spread_eV": spread.spread_eV,
                }
                for spread in self.label_spreads
            ],
        }

    @classmethod
    def from_plain(cls, content: Mapping[str, Any]) -> "Limits":
        """Return what `plain` was made from; what is missing sets no limit.

        Raises:
            CheckpointError: an unknown name, or a value of a wrong kind.
        """
        try:
            given = dict(content)
            spreads = tuple(
                LabelSpread(
                    frozenset(_number(symbol) for symbol in each["metals"]),
                    float(each["spread_eV"]),
                )
                for each in given.pop("label_spreads", ())
            )
            for name in ("largest_shares", "doubtful_elements"):
                values = given.pop(name, {})
                given[name] = {_number(s): value for s, value in values.items()}
            given["adsorbates"] = tuple(map(str, given.pop("adsorbates", ())))
            for name in ("smallest_area_A2", "most_oxygen_per_metal"):
                if name in given:
                    given[name] = float(given[name])
            return cls(label_spreads=spreads, **given)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the limits of the model cannot be read ({error!r}); expected the "
                "fields of crack_md.models.limits.Limits: write them again with "
                "crack-md domain --limits"
            ) from error

    def _adsorbate_rules(self, groups: Sequence[str]) -> list[tuple[float, str]]:
        known = {_hill(name) for name in self.adsorbates}
        other = sorted({group for group in groups if known and group not in known})
        if not other:
            return [(0.0, "the adsorbates are known")]
        names = ", ".join(self.adsorbates)
        return [(FAR_AWAY, f"{', '.join(other)} on the surface; labels had {names}")]

    def _share_rules(self, numbers: Int[ndarray, " atom"]) -> list[tuple[float, str]]:
        return [
            (
                share(numbers, z) / largest,
                f"{100 * share(numbers, z):.0f} % {chemical_symbols[z]} near the "
                f"surface, where labels can be trusted up to {100 * largest:.0f} %",
            )
            for z, largest in self.largest_shares.items()
        ]

    def _area_rule(self, area_A2: float, n_adsorbates: int) -> tuple[float, str]:
        each = area_A2 / n_adsorbates
        return self.smallest_area_A2 / each, (
            f"{each:.1f} Å² for each of {n_adsorbates} adsorbates; the limit is "
            f"{self.smallest_area_A2:g} Å²"
        )

    def _oxygen_rule(self, n_oxygen: int, n_metal: int) -> tuple[float, str]:
        ratio = n_oxygen / n_metal
        return ratio / self.most_oxygen_per_metal, (
            f"{ratio:.2f} oxygen atoms for each metal atom, as in an oxide; the limit "
            f"is {self.most_oxygen_per_metal:g}"
        )


def share(numbers: Int[ndarray, " atom"], element: int) -> float:
    """Return the share of atoms that are of one element; 0 without atoms."""
    return float(np.mean(numbers == element)) if len(numbers) else 0.0


def near_surface(
    height_A: Float[ndarray, " atom"], *, depth_A: float = NEAR_SURFACE_A
) -> ndarray:
    """Return which atoms are less than a depth below the highest one."""
    return height_A > height_A.max() - depth_A


def bonded_groups(atoms: Atoms) -> tuple[str, ...]:
    """Return the Hill formula of every group of atoms that bonds hold together."""
    first, second = neighbor_list(
        "ij", atoms, BONDED * covalent_radii[atoms.numbers], self_interaction=False
    )
    bonds = coo_array((np.ones(len(first)), (first, second)), shape=(len(atoms),) * 2)
    n_groups, group = connected_components(bonds, directed=False)
    return tuple(
        atoms.symbols[group == number].get_chemical_formula("hill")
        for number in range(n_groups)
    )


def _near_surface(atoms: Atoms, metal: ndarray) -> ndarray:
    """Return which metal atoms are near the upper surface, along the third vector."""
    normal = np.cross(atoms.cell[0], atoms.cell[1])
    length = float(np.linalg.norm(normal))
    normal = normal / length if length > 0 else np.array([0.0, 0.0, 1.0])
    normal *= np.sign(normal @ atoms.cell[2]) or 1.0
    return near_surface(atoms.positions[metal] @ normal)


def _surface_area(atoms: Atoms) -> float:
    """Return the area in Å² spanned by the first two vectors; infinite without pbc."""
    if not atoms.pbc[:2].all():
        return np.inf
    return float(np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])))


def _hill(formula: str) -> str:
    return Formula(formula).format("hill")


def _number(symbol: Any) -> int:
    return int(atomic_numbers[symbol])


def _by_symbol(values: Mapping[int, Any]) -> dict[str, Any]:
    return {chemical_symbols[z]: value for z, value in sorted(values.items())}


def _refuse(name: str, value: object, expected: str) -> None:
    raise CheckpointError(
        f"the model's limits have {name} {value!r}; expected {expected}"
    )
