"""Records of a screening. Energies are eV, lengths Å, potentials V."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crack_md.workflows.orr_sets import DEFAULT_CORRECTIONS, DEFAULT_SCALING
from crack_md.workflows.relax import MAXSTEP_A

ADSORBED = ("converged", "not_converged")
"""Site statuses whose energies mean an adsorbed species."""


@dataclass(frozen=True)
class ModelInfo:
    """What a screening has to know about the model behind a calculator."""

    name: str
    sha256: str
    energy_reference: str
    """``total`` or ``adsorption`` (energies are adsorption energies already)."""
    gas_references: Mapping[str, float] = field(default_factory=dict)
    elements: frozenset[str] | None = None
    """Symbols the model knows; None where it does not say."""


@dataclass(frozen=True)
class ScreenSettings:
    """What decides the numbers of a screening, besides model and structures."""

    adsorbate: str = "O"
    fmax: float = 0.03
    steps: int = 300
    maxstep: float = MAXSTEP_A
    corrections: str = DEFAULT_CORRECTIONS
    scaling: str = DEFAULT_SCALING

    def conditions(self, model: ModelInfo) -> dict[str, Any]:
        """Return what two runs must share for one to continue the other."""
        return {
            "adsorbate": self.adsorbate,
            "fmax_eV_per_A": self.fmax,
            "steps": self.steps,
            "maxstep_A": self.maxstep,
            "model_sha256": model.sha256,
            "energy_reference": model.energy_reference,
            "gas_references_eV": dict(model.gas_references),
        }


@dataclass(frozen=True)
class RelaxationRecord:
    """One relaxation as it is stored; everything else is worked out from these."""

    key: str
    slab: str
    site: str
    """Label of the starting site; empty for a clean slab."""
    status: str
    """``converged``, ``not_converged``, ``desorbed``, ``intercalated``, ``failed``."""
    energy: float | None = None
    max_force: float | None = None
    n_steps: int | None = None
    final_site: str | None = None
    migrated: bool = False
    height: float | None = None
    error: str = ""


@dataclass(frozen=True)
class SiteResult:
    """One starting site: where the adsorbate went and how strongly it binds."""

    record: RelaxationRecord
    elements: str
    multiplicity: int
    adsorption_energy: float | None
    """ΔE against gas-phase H2O and H2."""
    free_energy: float | None
    """ΔG at 298 K."""

    @property
    def is_valid(self) -> bool:
        """Return whether the energy may decide about the slab."""
        return self.record.status == "converged" and self.adsorption_energy is not None


@dataclass(frozen=True)
class SlabResult:
    """One slab: its best site and what that means for oxygen reduction."""

    name: str
    formula: str
    status: str
    """``ok``, ``no_valid_site``, ``clean_not_converged`` or why it was left out."""
    error: str = ""
    sites: tuple[SiteResult, ...] = ()
    clean: RelaxationRecord | None = None
    coverage: float | None = None
    """Monolayers: one adsorbate per exposed atom is 1."""
    rank: int | None = None
    limiting_potential: float | None = None
    overpotential: float | None = None
    energy_vs_pt111: float | None = None

    @property
    def best(self) -> SiteResult | None:
        """Return the valid site of lowest energy."""
        valid = [site for site in self.sites if site.is_valid]
        return min(valid, key=lambda site: site.adsorption_energy or 0.0, default=None)

    @property
    def n_valid(self) -> int:
        """Return how many sites have energies that count."""
        return sum(site.is_valid for site in self.sites)

    @property
    def gap_to_next(self) -> float | None:
        """Return how much weaker the next distinct final site binds."""
        best = self.best
        if best is None or best.adsorption_energy is None:
            return None
        others = [
            site.adsorption_energy - best.adsorption_energy
            for site in self.sites
            if site.is_valid
            and site.adsorption_energy is not None
            and site.record.final_site != best.record.final_site
        ]
        return min(others, default=None)


@dataclass(frozen=True)
class ScreenResult:
    """All slabs, best first, then those without a result in the order given."""

    slabs: tuple[SlabResult, ...]
    model: ModelInfo
    settings: ScreenSettings
    pt111: SlabResult | None
    """Where ``energy_vs_pt111`` is measured from; None where it could not be had."""
    pt111_source: str
    n_relaxed: int
    n_reused: int

    @property
    def all_failed(self) -> bool:
        """Return whether not a single slab has a result."""
        return all(slab.status != "ok" for slab in self.slabs)
