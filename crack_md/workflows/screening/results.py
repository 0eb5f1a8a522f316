"""Records of a screening: sites, slabs, and what follows for oxygen reduction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.orr import FreeEnergyDiagram
from crack_md.workflows.relax.store import RelaxationRecord
from crack_md.workflows.screening.plan import ScreenSettings, SlabPlan
from crack_md.workflows.stability.stability import SlabStability

TIE_EV = 1e-3
"""Relaxed to 0.03 eV/Å, energies of one minimum differ by so much."""


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
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Key-value pairs of the input, for the table."""

    def best_of(self, adsorbate: str) -> SiteResult | None:
        """Return the valid site where an adsorbate has its lowest energy.

        Of starts within 1 meV that which did not migrate.
        """
        valid = [
            (site.adsorption_energy, site)
            for site in self.of(adsorbate)
            if site.is_valid and site.adsorption_energy is not None
        ]
        lowest = min((energy for energy, _ in valid), default=0.0)
        # two starts that end on one site differ by where the forces were small enough
        tied = [pair for pair in valid if pair[0] <= lowest + TIE_EV]
        best = min(tied, key=lambda p: (p[1].record.migrated, p[0]), default=None)
        return best[1] if best is not None else None

    def of(self, adsorbate: str) -> tuple[SiteResult, ...]:
        """Return all sites of an adsorbate."""
        return tuple(s for s in self.sites if s.record.adsorbate == adsorbate)

    @property
    def best(self) -> SiteResult | None:
        """Return the valid site of lowest energy of the first adsorbate."""
        return self.best_of(self.sites[0].record.adsorbate) if self.sites else None

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


class RelaxesPlans(Protocol):
    """Does what `crack_md.workflows.screening.screen` does with plans."""

    def results(self, plans: Sequence[SlabPlan]) -> list[SlabResult]:
        """Return what became of every slab, in the order given."""


@dataclass(frozen=True)
class CoveredSlab:
    """O* at one coverage of a slab; the docstring of `coverage` has the equations."""

    asked_ML: float
    status: str
    """Of the relaxation; ``not_held`` where the cell cannot have this coverage."""
    coverage_ML: float | None = None
    """Of the cell: O* for each surface atom."""
    n_adsorbed: int | None = None
    sites: str = ""
    """Where O* start: ``fcc#1 + fcc#2``."""
    nearest_A: float | None = None
    """Smallest distance of two O* at the start."""
    n_pairs: int | None = None
    """Neighbors among O* at the start, images included."""
    mean_eV: float | None = None
    """ΔE for each O*."""
    differential_eV: float | None = None
    """ΔE for each O* beyond ``lower_ML``."""
    lower_ML: float | None = None
    """The next lower coverage with a result, 0 for the clean slab."""
    lateral_eV: float | None = None
    """For each pair of neighbors; positive where they repel each other."""
    domain_distance: float | None = None
    key: str = ""
    """Of the relaxation."""
    note: str = ""
    """Why something is missing, or may mean nothing."""


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
    stability: Mapping[str, SlabStability] = field(default_factory=dict)
    """By slab, where it was asked for and the clean slab came to rest."""
    coverages: Mapping[str, tuple[CoveredSlab, ...]] = field(default_factory=dict)
    """By slab with a result, where higher coverages were asked for."""


class Leaving(NamedTuple):
    """Which element of a surface dissolves first; empty where none is known to."""

    element: str = ""
    potential_V: float | None = None
    below: bool | None = None
    """Whether that is below the limiting potential."""


def dissolves_first(slab: SlabResult, result: ScreenResult) -> Leaving:
    """Return what leaves a surface first, and whether below its limiting potential."""
    found = result.stability.get(slab.name)
    atom = found.dissolves if found is not None else None
    if atom is None or atom.dissolution_V is None:
        return Leaving()
    limit, potential = slab.limiting_potential, atom.dissolution_V
    return Leaving(
        atom.element, potential, None if limit is None else potential < limit
    )
