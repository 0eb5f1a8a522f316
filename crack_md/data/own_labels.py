"""Labels that a structure brings: from its calculator, or under names for training."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from crack_md.errors import DataError

REFERENCE = "REF_"
"""Before energy and forces in files made for training, as MACE reads them."""


class OwnLabels(NamedTuple):
    """What a structure brings of an energy and forces; None for what it lacks."""

    energy: float | None
    """eV."""
    forces: NDArray[np.float64] | None
    """(atom, 3) in eV/Å; constraints not applied."""
    replaced: bool
    """Whether other values, of its calculator, gave way to those named REF_."""

    @property
    def kind(self) -> str:
        """Return in words which labels there are."""
        parts = {"energy": self.energy, "forces": self.forces}
        there = [name for name, value in parts.items() if value is not None]
        return " and ".join(there) or "no label"


def own_labels(atoms: Atoms) -> OwnLabels:
    """Return the labels that came with a structure.

    Raises:
        DataError: one is no number, not finite, or of another shape than the structure.
    """
    results = dict(getattr(atoms.calc, "results", {}))
    results.setdefault("energy", results.get("free_energy"))
    named = {**atoms.info, **atoms.arrays}
    reference = {
        name: named[f"{REFERENCE}{name}"]
        for name in ("energy", "forces")
        if f"{REFERENCE}{name}" in named
    }
    energy, forces = (_of(name, reference, results) for name in ("energy", "forces"))
    if energy is not None and energy.size != 1:
        raise DataError(f"an energy of {energy.size} numbers; expected one, in eV")
    if forces is not None and forces.shape != atoms.positions.shape:
        raise DataError(
            f"forces of shape {forces.shape}; expected {atoms.positions.shape}, in eV/Å"
        )
    return OwnLabels(
        energy=None if energy is None else float(energy.reshape(())),
        forces=forces,
        replaced=any(_differ(reference[key], results.get(key)) for key in reference),
    )


def without_reference(atoms: Atoms) -> Atoms:
    """Return a copy without what is named REF_: its labels stand elsewhere."""
    copy = atoms.copy()
    for holder in (copy.info, copy.arrays):
        for name in ("energy", "forces"):
            holder.pop(f"{REFERENCE}{name}", None)
    return copy


def _of(
    name: str, reference: Mapping[str, Any], results: Mapping[str, Any]
) -> NDArray[np.float64] | None:
    value = reference.get(name, results.get(name))
    if value is None:
        return None
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} is {str(value)[:40]!r}; expected numbers") from None
    if not np.isfinite(array).all():
        raise DataError(f"an energy or a force that is not finite ({name})")
    return array


def _differ(one: Any, other: Any) -> bool:
    return other is not None and not np.allclose(one, other, rtol=0, atol=1e-8)
