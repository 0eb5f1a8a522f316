"""Structures that exploration may start from, and what it comes to."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from jaxtyping import Float

from crack_md.data.augment.frames import write_frames
from crack_md.data.augment.recipe import read_recipe
from crack_md.data.dataset import LabelledDataset, free_atoms, group_of
from crack_md.data.labelling import SplitRule
from crack_md.data.readers import read_structures
from crack_md.data.splits import is_held_out, parse_combinations, split_of
from crack_md.errors import DataError
from crack_md.training.on_policy.config import LoopConfig

RunKind = Literal["relaxed", "thermal"]
QUARANTINE = "quarantine"
"""Entry of `info` that says why a frame has diverged."""


@dataclass(frozen=True, eq=False)
class Start:
    """A structure to explore from."""

    number: int
    """Among the starts of the round; decides its random numbers."""
    atoms: Atoms
    """`info` says group, split, surface and adsorbate."""


@dataclass(frozen=True, eq=False)
class Visit:
    """A structure that the student came to."""

    positions: Float[np.ndarray, "atom 3"]
    step: int
    reason: str | None = None
    """Why it has diverged, which ended the run."""
    facts: dict[str, float] = field(default_factory=dict)

    def frame(self, start: Start, kind: RunKind) -> Atoms:
        """Return it as a structure; without energies, those of a student are none."""
        frame = start.atoms.copy()
        frame.positions = self.positions
        facts: dict[str, Any] = {"start": start.number, "step": self.step, **self.facts}
        if self.reason is not None:
            facts[QUARANTINE] = self.reason
        frame.info = {**start.atoms.info, "kind": kind, **facts}
        return frame


KEPT = ("group", "surface", "adsorbate")


def split_rule(config: LoopConfig, dataset: LabelledDataset) -> SplitRule:
    """Return how the dataset was divided, which holds for what joins it.

    Raises:
        DataError: Neither the dataset nor the loop says which pairs are held out.
    """
    known = dataset.metadata.get("split")
    if known is None and config.hold_out is None:
        raise DataError(
            f"{config.data} does not say by which rule it was split; give hold_out in "
            "the loop, such as Ag-Pd,Cu-Ir, or '' for none"
        )
    known = dict(known or {"held_out": (), "val": 0.0, "test": 0.0, "seed": 0})
    pairs = tuple(tuple(map(str, symbols)) for symbols in known["held_out"])
    if config.hold_out is not None:
        pairs = parse_combinations(config.hold_out, at_least=2)
    return SplitRule(pairs, val=known["val"], test=known["test"], seed=known["seed"])


def find_starts(
    config: LoopConfig,
    dataset: LabelledDataset,
    rule: SplitRule,
    *,
    number: int,
    scratch: Path,
    elements: Iterable[int],
) -> tuple[list[Atoms], Counter[str]]:
    """Return the starts of a round, and what was passed over, by reason.

    Args:
        config: The loop.
        dataset: Whose groups keep their split.
        rule: How it was divided, for groups that are new.
        number: Of the round.
        scratch: Where structures of a recipe are written.
        elements: Atomic numbers that the student knows.
    """
    splits = {one.group: one.split for one in dataset.structures if one.split}
    known = set(elements)
    passed: Counter[str] = Counter()
    fit: list[Atoms] = []
    for atoms in _candidates(config, number, scratch):
        reason = _why_not(atoms, rule, splits, known)
        if reason is None:
            fit.append(_plain(atoms))
        else:
            passed[reason] += 1
    random = np.random.default_rng([config.seed, number])
    chosen = np.sort(random.permutation(len(fit))[: config.starts.limit])
    if not len(chosen):
        raise DataError(
            f"{config.starts.path} has no structure to explore from: passed over "
            + ", ".join(f"{count} {reason}" for reason, count in passed.items())
        )
    return [fit[place] for place in chosen], passed


def _candidates(config: LoopConfig, number: int, scratch: Path) -> Iterator[Atoms]:
    path = config.starts.path
    if path.suffix in (".yaml", ".yml"):
        recipe = read_recipe(path)
        recipe = recipe.model_copy(update={"seed": recipe.seed + 1 + number})
        if not scratch.exists():
            write_frames(recipe, scratch, teacher=config.starts.teacher)
        path = scratch
    for place, atoms in enumerate(read_structures(path)):
        atoms.info["group"] = group_of(atoms, place)
        yield atoms


def _why_not(
    atoms: Atoms, rule: SplitRule, splits: Mapping[str, str], known: set[int]
) -> str | None:
    if is_held_out(atoms, rule.held_out):
        return "of held-out pairs"
    group = str(atoms.info["group"])
    split = splits.get(group) or split_of(
        atoms, group, val=rule.val, test=rule.test, seed=rule.seed
    )
    if split != "train":
        return "of groups that validate or test"
    if not known.issuperset(atoms.numbers.tolist()):
        return "with elements unknown to the student"
    return None if free_atoms(atoms).any() else "in which nothing moves"


def _plain(atoms: Atoms) -> Atoms:
    """Return the structure with what it is, and no labels."""
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    free = free_atoms(atoms)
    if not free.all():
        plain.set_constraint(FixAtoms(mask=~free))
    plain.info = {key: atoms.info[key] for key in KEPT if key in atoms.info}
    plain.info["split"] = "train"
    return plain
