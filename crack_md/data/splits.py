"""Which frames train a model and which test it; groups are never divided.

Whether a group belongs to validation is a pure function of (seed, group), so adding
structures to a set moves none of those already there.
"""

import hashlib
from collections.abc import Sequence

from ase import Atoms
from ase.data import atomic_numbers

from crack_md.errors import ConfigError

Pair = tuple[str, str]
HELD_OUT_PAIRS: tuple[Pair, ...] = (("Ag", "Pd"), ("Cu", "Ir"), ("Au", "Rh"))
"""Never trained on in the packaged student, in any stoichiometry or superset."""


def parse_pairs(text: str) -> tuple[Pair, ...]:
    """Return element pairs from text such as `Ag-Pd,Cu-Ir`; none from empty text."""
    pairs = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        symbols = word.split("-")
        if len(symbols) != 2 or not all(symbol in atomic_numbers for symbol in symbols):
            raise ConfigError(
                f"'{word}' is not a pair of elements; expected for example Ag-Pd,Cu-Ir"
            )
        pairs.append((symbols[0], symbols[1]))
    return tuple(pairs)


def parse_combinations(text: str) -> tuple[tuple[str, ...], ...]:
    """Return elements and combinations from text such as `Ni,Co-O`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    found = tuple(tuple(word.split("-")) for word in words)
    for word, symbols in zip(words, found, strict=True):
        if not all(symbol in atomic_numbers for symbol in symbols):
            raise ConfigError(
                f"'{word}' is no element or combination; expected for example Ni,Co-O"
            )
    return found


def is_held_out(atoms: Atoms, pairs: Sequence[tuple[str, ...]]) -> bool:
    """Return whether the structure contains all elements of any of these sets."""
    present = set(atoms.get_chemical_symbols())
    return any(present.issuperset(pair) for pair in pairs)


def split_of(
    atoms: Atoms,
    group: str,
    *,
    held_out: Sequence[Pair] = (),
    val: float = 0.05,
    test: float = 0.0,
    seed: int = 0,
) -> str:
    """Return train, val or test for a structure.

    Args:
        atoms: Decides whether a held-out pair occurs; those are test.
        group: All of a group share one split, unless held-out pairs divide it.
        held_out: Element pairs that training never sees.
        val: Share of the remaining groups for validation.
        test: Share of the remaining groups for testing on seen element pairs.
        seed: Chooses the groups.
    """
    if is_held_out(atoms, held_out):
        return "test"
    check_shares(val=val, test=test)
    draw = _uniform(f"{seed}:{group}")
    if draw < val:
        return "val"
    return "test" if draw < val + test else "train"


def _uniform(text: str) -> float:
    """Return a number in [0, 1) that only the text decides."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64


def check_shares(*, val: float, test: float) -> None:
    """Raise ConfigError unless validation and test leave something to train on."""
    if min(val, test) < 0 or val + test >= 1:
        raise ConfigError(
            f"the shares of val ({val}) and test ({test}) must not be negative and "
            "must sum to less than 1"
        )
