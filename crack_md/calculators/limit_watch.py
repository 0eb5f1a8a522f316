"""A word to who asks a model for what it is not made for."""

import warnings

import ase

from crack_md.models.limits import Limits


class LimitWatch:
    """Warns once when a structure is beyond the limits of a model.

    A structure is looked at when its elements or their order change, not in every
    step: shares and coverage do not change on the way.
    """

    def __init__(self, limits: Limits | None) -> None:
        self.limits = limits
        self._last: bytes | None = None
        self._has_warned = False

    def check(self, atoms: ase.Atoms) -> None:
        """Warn if this is the first structure beyond the limits."""
        numbers = atoms.numbers.tobytes()
        if self.limits is None or self._has_warned or numbers == self._last:
            return
        self._last = numbers
        far, why = self.limits.distance(atoms)
        notes = [why] if far > 1 else []
        notes += self.limits.warnings(atoms.numbers.tolist())
        if notes:
            self._has_warned = True
            warnings.warn(
                f"{atoms.get_chemical_formula(mode='metal')} is beyond what the model "
                f"was made for: {'; '.join(notes)}; do not trust its energies. Further "
                "structures are not named.",
                stacklevel=4,
            )
