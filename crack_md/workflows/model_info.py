"""What a workflow has to know about the model behind a calculator."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crack_md.models.limits import Limits

from ase.calculators.calculator import BaseCalculator

from crack_md.errors import describe_unknown_elements


@dataclass(frozen=True)
class ModelInfo:
    """What a workflow has to know about the model behind a calculator."""

    name: str
    sha256: str
    energy_reference: str
    """``total`` or ``adsorption`` (energies are adsorption energies already)."""
    gas_references: Mapping[str, float] = field(default_factory=dict)
    """Energies in eV of gas molecules by this model, by name."""
    elements: frozenset[str] | None = None
    """Symbols the model knows; None where it does not say."""
    forces: str = "gradient"
    """``gradient``, or ``direct`` for forces that may have no zero to relax to."""
    spin_polarised: bool | None = None
    """Whether its training data were; None where it does not say."""
    reflections: bool | None = None
    """Whether mirror images have mirrored forces; None where it does not say."""
    dtype: str | None = None
    """Precision of a network; None where there is none, or it does not say."""
    limits: "Limits | None" = None
    """What it may be asked for; None where it does not say."""

    def note_of_mirrors(self) -> str:
        """Return what to say where crystal symmetry is used; empty for nothing."""
        if self.reflections is not False:
            return ""
        return (
            "this model is exact under rotations only, and symmetry that includes "
            "mirror images is used: modes that they keep apart may be off by some "
            "0.1 THz"
        )

    def holds_adsorbate(self, name: str) -> bool:
        """Return whether the model says that its labels held this adsorbate."""
        return self.limits is not None and name in self.limits.adsorbates

    def refusal(self, symbols: Iterable[str], *, of: str = "") -> str:
        """Return in words which elements the model does not know; empty for none.

        Args:
            symbols: of a structure or an adsorbate.
            of: what holds them, such as ``", which OH holds"``.
        """
        if self.elements is None:
            return ""
        return describe_unknown_elements(symbols, self.elements, of=of)


def domain_distance(calculator: BaseCalculator) -> float | None:
    """Return how near atoms of the last structure were, measured by training.

    Above 1 they were nearer than any that the model learned from; None where it does
    not tell.
    """
    found = getattr(calculator, "results", {}).get("domain_distance")
    return None if found is None else float(found)


def note_of_domain(distance: float | None) -> str:
    """Return what to say of atoms nearer than the model knows; empty where none are."""
    if distance is None or distance <= 1:
        return ""
    return (
        "atoms came nearer to each other than in anything the model was trained on "
        f"(domain_distance {distance:.2f}, the limit is 1): do not trust these energies"
    )
