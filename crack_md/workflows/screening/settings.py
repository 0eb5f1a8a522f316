"""What decides the numbers of a screening, besides model and structures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crack_md.errors import ConfigError
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.orr.constants import (
    CORRECTIONS,
    DEFAULT_CORRECTIONS,
    DEFAULT_SCALING,
    SCALINGS,
)
from crack_md.workflows.orr.references import (
    DEFAULT_REFERENCE,
    gas_energy,
    reference_named,
)
from crack_md.workflows.relax.relax import (
    DEFAULT_OPTIMIZER,
    MAXSTEP_A,
    PLATEAU_STEPS,
    RelaxSettings,
    optimizer_named,
)
from crack_md.workflows.relax.store import RelaxationRecord as RelaxationRecord
from crack_md.workflows.surfaces.adsorbates import ADSORBATES, Adsorbate

DEFAULT_DTYPES = (None, "float32")


@dataclass(frozen=True)
class ScreenSettings:
    """What decides the numbers of a screening, besides model and structures."""

    adsorbates: tuple[Adsorbate, ...] = (ADSORBATES["O"],)
    """The first one is the one that tables are about."""
    fmax: float = 0.03
    steps: int = 300
    maxstep: float = MAXSTEP_A
    optimizer: str = DEFAULT_OPTIMIZER
    orientations: int = 2
    """Turns about the normal that a leaning molecule starts with on every site."""
    random_placements: int = 0
    """Further starts per adsorbate, anywhere on the surface."""
    seed: int = 0
    max_sites: int | None = None
    """Most sites per slab; of more, so many are drawn."""
    reference: str = DEFAULT_REFERENCE
    corrections: str = DEFAULT_CORRECTIONS
    scaling: str = DEFAULT_SCALING

    @property
    def adsorbate(self) -> str:
        """Return the name of the first adsorbate."""
        return self.adsorbates[0].name

    def check(self) -> None:
        """Raise ConfigError for a name that is not known."""
        optimizer_named(self.optimizer)
        reference_named(self.reference)
        for kind, name, known in (
            ("corrections", self.corrections, CORRECTIONS),
            ("scaling", self.scaling, SCALINGS),
        ):
            if name not in known:
                names = ", ".join(known)
                raise ConfigError(f"unknown {kind} '{name}'; expected one of: {names}")

    def check_for(self, model: ModelInfo) -> None:
        """Raise ConfigError where a model cannot say anything about an adsorbate.

        It was not trained on an element, or a gas energy is missing that total energies
        refer to.
        """
        energies = self.gas_energies(model)
        for adsorbate in self.adsorbates:
            refusal = model.refusal(
                adsorbate.composition, of=f", which {adsorbate.name} holds"
            )
            if refusal:
                raise ConfigError(refusal)
            if model.energy_reference == "total":
                gas_energy(adsorbate.name, adsorbate.composition, energies)

    def relaxation(self, *, direct_forces: bool) -> RelaxSettings:
        """Return how clean and covered slabs are relaxed."""
        return RelaxSettings(
            optimizer=self.optimizer,
            fmax=self.fmax,
            steps=self.steps,
            maxstep=self.maxstep,
            plateau_steps=PLATEAU_STEPS if direct_forces else None,
        )

    def gas_energies(self, model: ModelInfo) -> Mapping[str, float]:
        """Return the energies in eV of gas molecules that the reference names."""
        return reference_named(self.reference).gas_energies or model.gas_references

    def conditions(self, model: ModelInfo) -> dict[str, Any]:
        """Return what two runs must share for one to continue the other.

        Which adsorbates, sites and random places there are is no part of it: a second
        run in the same folder may add to them.
        """
        direct = model.forces == "direct"
        # left out where it is the default: folders of earlier versions go on
        other = {"dtype": model.dtype} if model.dtype not in DEFAULT_DTYPES else {}
        return {
            "fmax_eV_per_A": self.fmax,
            "steps": self.steps,
            "maxstep_A": self.maxstep,
            "optimizer": self.optimizer,
            "plateau_steps": PLATEAU_STEPS if direct else None,
            "model_sha256": model.sha256,
            "energy_reference": model.energy_reference,
            "gas_references_eV": dict(model.gas_references),
            **other,
        }
