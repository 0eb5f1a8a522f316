"""Formation, segregation and dissolution of slabs, from relaxations of variants.

    formation     E_f = [E(slab) - Σ n_M E(slab of M)]/N + Σ x_M [E(M) - E°(M)]
    segregation   ΔE_M = E(M swapped up) - E(slab), lowest over swaps of M
                  with O*: ΔE_M + ΔE_O(M swapped up) - ΔE_O(slab)
    dissolution   U_M = U° + [E(slab without M) + E°(M) - E(slab)]/n e, lowest over M

with E°(M) the energy of an atom of bulk metal M, E(M) that of close-packed M stacked as
the slab is, N atoms in the slab and x_M their shares. The slabs of M have the slab's
shape at M's own lattice constant, so that surface energies go out, and E_f is against
bulk elements. A negative segregation energy means that M rises to the surface: with O*,
by the sum of Y. Ma and P. B. Balbuena, Surf. Sci. 603, 349 (2009).

The variants are made here, too: atoms swapped, an atom missing, pure metals.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray

from crack_md.workflows.stability.metals import Metal, dissolution_potential
from crack_md.workflows.surfaces.orientation import held_atoms
from crack_md.workflows.surfaces.slab import Slab

FIRST_SHELL = 1.2
"""Times the usual distance of nearest neighbors; in fcc the second shell is at 1.41."""
MOST_VARIANTS = 4
"""Swaps of an element, and vacancies of one: more of them repeat each other."""
CLOSE_PACKED = 12


@dataclass(frozen=True, eq=False)
class SlabVariant:
    """A slab that differs from another one by an atom or two, or by its elements."""

    element: str
    """Which rises to the surface, is missing, or is all that the slab is made of."""
    kind: str
    """``swap``, ``vacancy`` or ``pure``."""
    slab: Slab
    label: str


def variants(slab: Slab) -> Iterator[SlabVariant]:
    """Yield every swap with the layer beneath, and every vacancy of the surface.

    Of each element at most four, with different neighbors. Atoms that are held are
    never moved: their distances would not be those of their new elements.

    Args:
        slab: as it was prepared, its atoms on ideal places.
    """
    bonded = neighbors(slab.atoms)
    held = held_atoms(slab.atoms)
    upper = [int(i) for i in slab.surface if int(i) not in held]
    symbols = [str(symbol) for symbol in slab.atoms.symbols]
    seen: dict[tuple[str, str], list[object]] = {}

    def is_new(kind: str, element: str, mark: object) -> bool:
        marks = seen.setdefault((kind, element), [])
        if mark in marks or len(marks) >= MOST_VARIANTS:
            return False
        marks.append(mark)
        return True

    shells = [tuple(sorted(symbols[j] for j in np.flatnonzero(row))) for row in bonded]
    for i in upper:
        if is_new("vacancy", symbols[i], shells[i]):
            yield _vacancy(slab, i)
        for j in np.flatnonzero(bonded[i]):
            beneath = int(j) not in held and int(j) not in slab.surface
            if beneath and symbols[j] != symbols[i]:
                mark = (symbols[i], shells[i], shells[j])
                if is_new("swap", symbols[j], mark):
                    yield _swap(slab, i, int(j))


def neighbors(atoms: Atoms) -> NDArray[np.bool_]:
    """Return the (atom, atom) matrix of nearest neighbors, without the vacuum."""
    reach = FIRST_SHELL * bond_length(atoms)
    first, second = neighbor_list("ij", _open_above(atoms), reach)
    matrix = np.zeros((len(atoms), len(atoms)), dtype=bool)
    matrix[first, second] = True
    np.fill_diagonal(matrix, False)
    return matrix


def bond_length(atoms: Atoms) -> float:
    """Return the median over atoms of the distance in Å to the nearest one."""
    first, distance = neighbor_list("id", _open_above(atoms), 4.0)
    nearest = np.full(len(atoms), np.inf)
    np.minimum.at(nearest, first, distance)
    return float(np.median(nearest))


def _open_above(atoms: Atoms) -> Atoms:
    flat = atoms.copy()
    flat.pbc = [True, True, False]
    return flat


def _swap(slab: Slab, upper: int, lower: int) -> SlabVariant:
    swapped = slab.atoms.copy()
    swapped.numbers[[upper, lower]] = swapped.numbers[[lower, upper]]
    up, down = slab.atoms.symbols[lower], slab.atoms.symbols[upper]
    label = f"{up} {lower} up, {down} {upper} down"
    return SlabVariant(str(up), "swap", replace(slab, atoms=swapped), label)


def _vacancy(slab: Slab, missing: int) -> SlabVariant:
    left = slab.atoms.copy()
    del left[missing]
    kept = np.arange(len(slab.atoms)) != missing
    surface = slab.surface[slab.surface != missing]
    surface = surface - (surface > missing)
    symbol = str(slab.atoms.symbols[missing])
    without = replace(slab, atoms=left, layer=slab.layer[kept], surface=surface)
    return SlabVariant(symbol, "vacancy", without, f"without {symbol} {missing}")


def pure_variant(slab: Slab, metal: Metal) -> SlabVariant:
    """Return the slab made of one metal, at that metal's own lattice constant."""
    pure = slab.atoms.copy()
    pure.numbers[:] = Atoms(metal.symbol).numbers[0]
    scale = metal.neighbor_A / bond_length(slab.atoms)
    pure.set_cell(pure.cell.array * scale, scale_atoms=True)
    return SlabVariant(
        metal.symbol, "pure", replace(slab, atoms=pure), f"all {metal.symbol}"
    )


def stacking(atoms: Atoms) -> str | None:
    """Return ``fcc`` or ``hcp`` for a close-packed slab, else None.

    Of the twelve neighbors of an inner atom every one lies opposite another in fcc, and
    only the six of its own layer do in hcp.
    """
    apart = bond_length(atoms)
    first, vector = neighbor_list("iD", _open_above(atoms), FIRST_SHELL * apart)
    counts = np.bincount(first, minlength=len(atoms))
    inner = np.flatnonzero(counts == CLOSE_PACKED)
    if len(inner) == 0 or counts.max() > CLOSE_PACKED:
        return None
    opposite = []
    for index in inner:
        own = vector[first == index]
        missed = np.linalg.norm(own[:, None] + own[None], axis=2).min(axis=1)
        opposite.append(int((missed < 0.3 * apart).sum()))
    return "fcc" if np.mean(opposite) > 9 else "hcp"


def mean_energy(counts: Mapping[str, int], energies: Mapping[str, float]) -> float:
    """Return the energy of separate atoms or slabs, per atom of the composition."""
    total = sum(counts.values())
    return sum(count * energies[symbol] for symbol, count in counts.items()) / total


@dataclass(frozen=True)
class VariantEnergy:
    """What the relaxation of a variant gave; None where it did not come to rest."""

    variant: SlabVariant
    energy_eV: float | None
    status: str


@dataclass(frozen=True)
class AtomStability:
    """What becomes of the atoms of one element."""

    element: str
    segregation_eV: float | None = None
    """To bring it up from the layer beneath; negative where it rises by itself."""
    segregation_adsorbed_eV: float | None = None
    """The same under the adsorbate of the screening, on its best sites."""
    dissolution_V: float | None = None
    """Potential above which it leaves the surface; None where it is not in it."""

    @property
    def is_reversed(self) -> bool:
        """Return whether the adsorbate turns the sign of the segregation around."""
        clean, covered = self.segregation_eV, self.segregation_adsorbed_eV
        return clean is not None and covered is not None and clean * covered < 0


@dataclass(frozen=True)
class SlabStability:
    """The stability of one slab."""

    formation_eV: float | None
    """Per atom, against bulk elements; negative is stable."""
    atoms: tuple[AtomStability, ...]
    notes: tuple[str, ...] = ()
    """What could not be had, and why."""

    @property
    def rises(self) -> AtomStability | None:
        """Return what is cheapest to bring up to the clean surface."""
        known = [a for a in self.atoms if a.segregation_eV is not None]
        return min(known, key=lambda a: a.segregation_eV or 0.0, default=None)

    @property
    def dissolves(self) -> AtomStability | None:
        """Return what leaves the surface first."""
        known = [a for a in self.atoms if a.dissolution_V is not None]
        return min(known, key=lambda a: a.dissolution_V or 0.0, default=None)

    @property
    def reversed_elements(self) -> tuple[str, ...]:
        """Return the elements whose segregation the adsorbate turns around."""
        return tuple(atom.element for atom in self.atoms if atom.is_reversed)


@dataclass(frozen=True, eq=False)
class SlabVariants:
    """A clean slab that came to rest, and all that it is compared with."""

    slab: Slab
    energy_eV: float
    metals: Mapping[str, Metal | None]
    """By symbol; None where the model does not know the bulk metal."""

    @property
    def elements(self) -> tuple[str, ...]:
        """Return the elements of the slab, by symbol."""
        return tuple(sorted(set(self.slab.atoms.symbols)))

    @cached_property
    def all(self) -> tuple[SlabVariant, ...]:
        """Return what is to be relaxed."""
        found = list(variants(self.slab))
        known = [self.metals[symbol] for symbol in self.elements]
        if self.lattice is not None and None not in known and len(known) > 1:
            found += [pure_variant(self.slab, metal) for metal in known if metal]
        return tuple(found)

    @cached_property
    def lattice(self) -> str | None:
        """Return how the slab is stacked, None where it is not close-packed."""
        return stacking(self.slab.atoms)

    def assess(
        self,
        energies: Sequence[VariantEnergy],
        adsorbed: Callable[[SlabVariant], float | None],
    ) -> SlabStability:
        """Return the stability that relaxed variants tell.

        Args:
            energies: of all variants.
            adsorbed: how much stronger the adsorbate binds on a variant in eV, below
                zero; None where that is not known.
        """
        atoms = []
        for symbol in self.elements:
            swap = lowest(energies, "swap", symbol)
            rise = None if swap is None else (swap.energy_eV or 0.0) - self.energy_eV
            shift = None if swap is None else adsorbed(swap.variant)
            covered = None if rise is None or shift is None else rise + shift
            atoms.append(
                AtomStability(
                    symbol, rise, covered, self._dissolution(energies, symbol)
                )
            )
        return SlabStability(
            self._formation(energies), tuple(atoms), self._notes(energies)
        )

    def _dissolution(
        self, energies: Sequence[VariantEnergy], symbol: str
    ) -> float | None:
        left, metal = lowest(energies, "vacancy", symbol), self.metals[symbol]
        if left is None or left.energy_eV is None or metal is None:
            return None
        removal = left.energy_eV + metal.energy_eV - self.energy_eV
        return dissolution_potential(symbol, removal)

    def _formation(self, energies: Sequence[VariantEnergy]) -> float | None:
        atoms = self.slab.atoms
        n_atoms, counts = len(atoms), Counter(map(str, atoms.symbols))
        metals = {symbol: self.metals[symbol] for symbol in self.elements}
        if self.lattice is None or None in metals.values():
            return None
        packed = {s: m.packed_eV[self.lattice] for s, m in metals.items() if m}
        natural = {s: m.energy_eV for s, m in metals.items() if m}
        change = mean_energy(counts, packed) - mean_energy(counts, natural)
        if len(counts) == 1:  # an element in its own lattice, or in another one
            return change
        pure = {s: lowest(energies, "pure", s) for s in self.elements}
        per_atom = {
            s: found.energy_eV / n_atoms
            for s, found in pure.items()
            if found is not None and found.energy_eV is not None
        }
        if len(per_atom) < len(counts):
            return None
        return self.energy_eV / n_atoms - mean_energy(counts, per_atom) + change

    def _notes(self, energies: Sequence[VariantEnergy]) -> tuple[str, ...]:
        unknown = [symbol for symbol in self.elements if self.metals[symbol] is None]
        notes = [f"bulk {symbol} is no crystal the model knows" for symbol in unknown]
        notes += [
            f"bulk {metal.symbol} is taken as fcc"
            for symbol in self.elements
            if (metal := self.metals[symbol]) and not metal.is_natural
        ]
        if self.lattice is None:
            notes.append("no formation energy: the slab is not close-packed, or thin")
        failed = Counter(
            f"{each.variant.element} {each.variant.kind}: {each.status}"
            for each in energies
            if each.energy_eV is None
        )
        notes += [f"{count} {what}" for what, count in failed.items()]
        if not any(each.variant.kind == "swap" for each in energies):
            one = len(self.elements) == 1
            reason = "one element" if one else "no other element, free to move, beneath"
            notes.append(f"no segregation energy: {reason}")
        return tuple(notes)


def lowest(
    energies: Sequence[VariantEnergy], kind: str, element: str
) -> VariantEnergy | None:
    """Return the variant of lowest energy of its kind that came to rest."""
    own = [
        each
        for each in energies
        if each.energy_eV is not None
        and (each.variant.kind, each.variant.element) == (kind, element)
    ]
    return min(own, key=lambda each: each.energy_eV or 0.0, default=None)
