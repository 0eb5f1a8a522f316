"""Where exploration starts, and what it comes to."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from ase import Atoms
from jaxtyping import Float

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
        told: dict[str, Any] = {"start": start.number, "step": self.step, **self.facts}
        if self.reason is not None:
            told[QUARANTINE] = self.reason
        frame.info = {**start.atoms.info, "kind": kind, **told}
        return frame
