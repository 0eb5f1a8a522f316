"""Which frames train a model and which test it; groups are never divided.

Whether a group belongs to validation is a pure function of (seed, group), so adding
structures to a set moves none of those already there.
"""

import hashlib
from collections.abc import Sequence

from ase import Atoms
from ase.data import atomic_numbers

from crack_md.errors import ConfigError

ElementSet = tuple[str, ...]


def parse_combinations(text: str, *, at_least: int = 1) -> tuple[ElementSet, ...]:
    """Return elements and combinations from text such as `Ni,Co-O`; none from nothing.

    Args:
        text: Combinations of element symbols, hyphens inside, commas in between.
        at_least: Fewest elements of a combination.

    Raises:
        ConfigError: A word is no combination, names an element twice or too few.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    found = tuple(tuple(word.split("-")) for word in words)
    for word, symbols in zip(words, found, strict=True):
        if not all(symbol in atomic_numbers for symbol in symbols):
            raise ConfigError(
                f"'{word}' is no element or combination; expected for example Ni,Co-O"
            )
        if len(set(symbols)) < max(at_least, len(symbols)):
            raise ConfigError(
                f"'{word}' is no combination of {at_least} or more different elements; "
                "expected for example Ag-Pd,Ni-Pt-Cu"
            )
    return found


def is_held_out(atoms: Atoms, combinations: Sequence[ElementSet]) -> bool:
    """Return whether the structure contains all elements of any combination."""
    present = set(atoms.get_chemical_symbols())
    return any(present.issuperset(symbols) for symbols in combinations)


def split_of(
    atoms: Atoms,
    group: str,
    *,
    held_out: Sequence[ElementSet] = (),
    val: float = 0.05,
    test: float = 0.0,
    seed: int = 0,
) -> str:
    """Return train, val or test for a structure.

    Args:
        atoms: Decides whether a held-out combination occurs; those are test.
        group: All of a group share one split, unless held-out combinations divide it.
        held_out: Combinations of elements that training never sees.
        val: Share of the remaining groups for validation.
        test: Share of the remaining groups for testing on seen combinations.
        seed: Chooses the groups.
    """
    if is_held_out(atoms, held_out):
        return "test"
    check_shares(val=val, test=test)
    place = draw(f"{seed}:{group}")
    if place < val:
        return "val"
    return "test" if place < val + test else "train"


def draw(text: str) -> float:
    """Return a number in [0, 1) that only the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def check_shares(*, val: float, test: float) -> None:
    """Raise ConfigError unless validation and test leave something to train on."""
    if min(val, test) < 0 or val + test >= 1:
        raise ConfigError(
            f"the shares of val ({val}) and test ({test}) must not be negative and "
            "must sum to less than 1"
        )
