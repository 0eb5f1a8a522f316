"""Records of a screening. Energies are eV, lengths Å, potentials V."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from crack_md.errors import ConfigError
from crack_md.workflows.orr.constants import (
    CORRECTIONS,
    DEFAULT_CORRECTIONS,
    DEFAULT_SCALING,
    SCALINGS,
)
from crack_md.workflows.orr.diagram import FreeEnergyDiagram
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
class ModelInfo:
    """What a screening has to know about the model behind a calculator."""

    name: str
    sha256: str
    energy_reference: str
    """``total`` or ``adsorption`` (energies are adsorption energies already)."""
    gas_references: Mapping[str, float] = field(default_factory=dict)
    elements: frozenset[str] | None = None
    """Symbols the model knows; None where it does not say."""
    forces: str = "gradient"
    """``gradient``, or ``direct`` for forces that may have no zero to relax to."""
    spin_polarised: bool | None = None
    """Whether its training data were; None where it does not say."""
    dtype: str | None = None
    """Precision of a network; None where there is none, or it does not say."""


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
            symbols = set(adsorbate.composition)
            unknown = sorted(symbols - (model.elements or symbols))
            if unknown:
                raise ConfigError(
                    f"the model was not trained on {', '.join(unknown)}, which "
                    f"{adsorbate.name} holds; it knows "
                    f"{', '.join(sorted(model.elements or ()))}"
                )
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


@dataclass(frozen=True)
class SiteResult:
    """One starting site: where the adsorbate went and how strongly it binds."""

    record: RelaxationRecord
    elements: str
    multiplicity: int
    adsorption_energy: float | None
    """ΔE against gas-phase H2O and H2 (CO, N2)."""
    free_energy: float | None
    """ΔG at 298 K; None for adsorbates without corrections."""
    environment: str = ""
    """Kind and contacts of the starting site: ``fcc-Pt2Ru``."""

    @property
    def is_valid(self) -> bool:
        """Return whether the energy may decide about the slab."""
        return self.record.is_settled and self.adsorption_energy is not None


@dataclass(frozen=True)
class SlabResult:
    """One slab: its best sites and what they mean for oxygen reduction."""

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
    diagram: FreeEnergyDiagram | None = None
    limiting_potential: float | None = None
    overpotential: float | None = None
    limiting_potential_band: tuple[float, float] | None = None
    """Lowest and highest limiting potential over all corrections and scalings."""
    energies_vs_pt111: Mapping[str, float] = field(default_factory=dict)
    """By adsorbate: how much weaker than on Pt(111) by the same model."""
    preparation: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def best_of(self, adsorbate: str) -> SiteResult | None:
        """Return the valid site where an adsorbate has its lowest energy."""
        valid = [site for site in self.of(adsorbate) if site.is_valid]
        return min(valid, key=lambda site: site.adsorption_energy or 0.0, default=None)

    def of(self, adsorbate: str) -> tuple[SiteResult, ...]:
        """Return all sites of an adsorbate."""
        return tuple(s for s in self.sites if s.record.adsorbate == adsorbate)

    @property
    def best(self) -> SiteResult | None:
        """Return the valid site of lowest energy of the first adsorbate."""
        return self.best_of(self.sites[0].record.adsorbate) if self.sites else None

    @property
    def energy_vs_pt111(self) -> float | None:
        """Return how much weaker the first adsorbate binds than on Pt(111)."""
        first = self.sites[0].record.adsorbate if self.sites else ""
        return self.energies_vs_pt111.get(first)

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
            for site in self.of(best.record.adsorbate)
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
    """Where distances to Pt(111) are measured from; None where it could not be had."""
    pt111_source: str
    n_relaxed: int
    n_reused: int

    @property
    def all_failed(self) -> bool:
        """Return whether not a single slab has a result."""
        return all(slab.status != "ok" for slab in self.slabs)
