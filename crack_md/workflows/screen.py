"""Screening: adsorption on every site of every slab, and what it means for the ORR."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from crack_md.workflows.adsorption import (
    Adsorbate,
    adsorbate_named,
    gas_energy,
    landing,
    place,
)
from crack_md.workflows.inputs import Entry
from crack_md.workflows.orr import free_energy, steps_from_oxygen
from crack_md.workflows.plan import SlabPlan, plan_pt111, plan_slab
from crack_md.workflows.relax import relax
from crack_md.workflows.results import (
    ADSORBED,
    ModelInfo,
    RelaxationRecord,
    ScreenResult,
    ScreenSettings,
    SiteResult,
    SlabResult,
)
from crack_md.workflows.sites import Site
from crack_md.workflows.store import ResultsStore, relaxation_key


class Progress(NamedTuple):
    """Sent after every relaxation."""

    done: int
    total: int
    slab: str
    site: str
    status: str
    reused: bool


Report = Callable[[Progress], None]


def screen(
    entries: Sequence[Entry],
    calculator: BaseCalculator,
    *,
    model: ModelInfo,
    store: ResultsStore,
    settings: ScreenSettings | None = None,
    report: Report | None = None,
) -> ScreenResult:
    """Return adsorption energies and ORR activities of all slabs, ranked.

    Relaxations that the store already has are not repeated. A slab or site that fails
    becomes a row with a status; only an unusable store ends the screening.

    Raises:
        ConfigError: unknown adsorbate, or no gas energies to refer to.
        DataError: results cannot be written.
    """
    chosen = settings or ScreenSettings()
    name = chosen.adsorbate
    plans = [plan_slab(entry, model=model, adsorbate=name) for entry in entries]
    pt111, source = plan_pt111(plans, calculator, model, chosen)
    given = pt111 is None or any(plan is pt111 for plan in plans)
    todo = plans if given or pt111 is None else [*plans, pt111]
    run = _Run.over(todo, calculator, model, chosen, store, report)
    results = {plan.name: run.slab(plan) for plan in todo}
    reference = results[pt111.name] if pt111 is not None else None
    slabs = rank([results[plan.name] for plan in plans], chosen, reference)
    return ScreenResult(
        slabs, model, chosen, reference, source, run.n_relaxed, run.n_reused
    )


def rank(
    slabs: Sequence[SlabResult],
    settings: ScreenSettings,
    pt111: SlabResult | None = None,
) -> tuple[SlabResult, ...]:
    """Return the slabs by falling limiting potential; failures come last."""
    origin = pt111.best if pt111 is not None else None
    reference = origin.adsorption_energy if origin is not None else None
    good, bad = [], []
    for slab in slabs:
        best = slab.best
        if (
            slab.status != "ok"
            or best is None
            or best.free_energy is None
            or best.adsorption_energy is None
        ):
            bad.append(slab)
            continue
        steps = steps_from_oxygen(best.free_energy, scaling=settings.scaling)
        distance = None if reference is None else best.adsorption_energy - reference
        good.append(
            replace(
                slab,
                limiting_potential=steps.limiting_potential,
                overpotential=steps.overpotential,
                energy_vs_pt111=distance,
            )
        )
    good.sort(key=lambda slab: (-(slab.limiting_potential or 0.0), slab.name))
    ranked = [replace(slab, rank=place) for place, slab in enumerate(good, start=1)]
    return (*ranked, *bad)


@dataclass
class _Run:
    """The relaxations of one screening, one after the other."""

    calculator: BaseCalculator
    model: ModelInfo
    settings: ScreenSettings
    store: ResultsStore
    report: Report | None
    adsorbate: Adsorbate
    gas: float
    total: int
    n_relaxed: int = 0
    n_reused: int = 0

    @classmethod
    def over(
        cls,
        plans: Sequence[SlabPlan],
        calculator: BaseCalculator,
        model: ModelInfo,
        settings: ScreenSettings,
        store: ResultsStore,
        report: Report | None,
    ) -> "_Run":
        adsorbate = adsorbate_named(settings.adsorbate)
        total_energies = model.energy_reference == "total"
        gas = gas_energy(adsorbate, model.gas_references) if total_energies else 0.0
        count = sum(len(p.sites) + total_energies for p in plans if p.slab is not None)
        return cls(
            calculator, model, settings, store, report, adsorbate, gas, int(count)
        )

    def slab(self, plan: SlabPlan) -> SlabResult:
        """Return what became of one slab and all its sites."""
        if plan.slab is None:
            return SlabResult(plan.name, plan.formula, plan.status, plan.error)
        result = SlabResult(
            plan.name,
            plan.formula,
            "ok",
            coverage=1.0 / len(plan.slab.surface),
        )
        substrate, clean = plan.slab.atoms, None
        if self.model.energy_reference == "total":
            clean = self._relaxation(plan, None, plan.slab.atoms)
            result = replace(result, clean=clean)
            if clean.status != "converged":
                self.total -= len(plan.sites)
                return replace(
                    result, status=f"clean_{clean.status}", error=clean.error
                )
            substrate = self.store.atoms(clean.key)
        sites = tuple(self._sites(plan, substrate, clean))
        if any(site.is_valid for site in sites):
            return replace(result, sites=sites)
        statuses = ", ".join(f"{s.record.site} {s.record.status}" for s in sites)
        return replace(result, sites=sites, status="no_valid_site", error=statuses)

    def _sites(
        self, plan: SlabPlan, substrate: Atoms, clean: RelaxationRecord | None
    ) -> Iterator[SiteResult]:
        assert plan.slab is not None
        zero = self.gas + (clean.energy or 0.0 if clean is not None else 0.0)
        for site in plan.sites:
            start = place(plan.slab, site, self.adsorbate, relaxed=substrate)
            record = self._relaxation(plan, site, start)
            bound = record.status in ADSORBED and record.energy is not None
            dE = record.energy - zero if bound and record.energy is not None else None
            dG = None if dE is None else self._free_energy(dE)
            yield SiteResult(record, site.elements, site.multiplicity, dE, dG)

    def _free_energy(self, dE: float) -> float | None:
        name = self.settings.corrections
        return free_energy(dE, self.adsorbate.name, corrections=name)

    def _relaxation(
        self, plan: SlabPlan, site: Site | None, start: Atoms
    ) -> RelaxationRecord:
        """Return a relaxation from the store, or do it and store it."""
        assert plan.slab is not None
        label = site.label if site is not None else ""
        key = relaxation_key(plan.slab.atoms, label, self.store.conditions)
        record = self.store.record(key)
        reused = record is not None
        if record is None:
            record, final = self._relax(plan, site, start, key)
            self.store.put(record, final, **self._columns(site))
        self.n_reused += reused
        self.n_relaxed += not reused
        # The same structure may come twice under two names.
        record = replace(record, slab=plan.name)
        if self.report is not None:
            done = self.n_relaxed + self.n_reused
            self.report(
                Progress(done, self.total, plan.name, label, record.status, reused)
            )
        return record

    def _relax(
        self, plan: SlabPlan, site: Site | None, start: Atoms, key: str
    ) -> tuple[RelaxationRecord, Atoms]:
        label = site.label if site is not None else ""
        try:
            result = relax(
                start,
                self.calculator,
                fmax=self.settings.fmax,
                steps=self.settings.steps,
                maxstep=self.settings.maxstep,
            )
        except Exception as error:  # one bad site must not end a night's screening
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            failed = RelaxationRecord(key, plan.name, label, "failed", error=text)
            return failed, start
        record = RelaxationRecord(
            key,
            plan.name,
            label,
            "converged" if result.converged else "not_converged",
            energy=result.energy,
            max_force=result.max_force,
            n_steps=result.n_steps,
        )
        if site is not None and plan.slab is not None:
            end = landing(result.atoms, slab=plan.slab, start=site, sites=plan.sites)
            record = replace(
                record,
                status=end.anomaly or record.status,
                final_site=end.site,
                migrated=end.migrated,
                height=end.height,
            )
        return record, result.atoms

    def _columns(self, site: Site | None) -> dict[str, Any]:
        return {} if site is None else {"adsorbate": self.adsorbate.name}
