"""Screening: adsorption on every site of every slab, and what it means for the ORR."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from crack_md.structures import Entry
from crack_md.workflows.orr.diagram import free_energy
from crack_md.workflows.orr.references import gas_energy
from crack_md.workflows.relax.store import (
    ADSORBED,
    RelaxationRecord,
    ResultsStore,
    relaxation_key,
)
from crack_md.workflows.screening.plan import SlabPlan, plan_pt111, plan_slab
from crack_md.workflows.screening.queue import Ledger
from crack_md.workflows.screening.rank import rank
from crack_md.workflows.screening.relaxations import (
    Report,
    Runner,
    Task,
    one_by_one,
    relaxer,
)
from crack_md.workflows.screening.results import (
    ModelInfo,
    ScreenResult,
    ScreenSettings,
    SiteResult,
    SlabResult,
)
from crack_md.workflows.surfaces.outcome import DomainDistance, neighbor_distance
from crack_md.workflows.surfaces.placement import Start, place


def screen(
    entries: Sequence[Entry],
    calculator: BaseCalculator,
    *,
    model: ModelInfo,
    store: ResultsStore,
    settings: ScreenSettings | None = None,
    report: Report | None = None,
    runner: Runner | None = None,
    distance: DomainDistance = neighbor_distance,
) -> ScreenResult:
    """Return adsorption energies and ORR activities of all slabs, ranked.

    Relaxations that the store already has are not repeated. A slab or site that fails
    becomes a row with a status; only an unusable store ends the screening.

    Args:
        entries: slabs, or why there are none.
        calculator: of the model.
        model: what has to be known about it.
        store: where relaxations are kept.
        settings: which adsorbates, how relaxed, what the numbers are made of.
        report: called after every relaxation.
        runner: how relaxations share the calculator; one by one where left out.
        distance: how far a structure is from what the model knows.

    Raises:
        ConfigError: no gas energies to refer to.
        DataError: results cannot be written.
    """
    chosen = settings or ScreenSettings()
    plans = [plan_slab(entry, model=model, settings=chosen) for entry in entries]
    pt111, source = plan_pt111(plans, calculator, model, chosen)
    given = pt111 is None or any(plan is pt111 for plan in plans)
    todo = plans if given or pt111 is None else [*plans, pt111]
    function = relaxer(
        chosen, direct_forces=model.forces == "direct", distance=distance
    )
    ledger = Ledger(store, runner or one_by_one(calculator), function, report)
    results = _Screening.of(model, chosen, store, ledger).results(todo)
    reference = results[pt111.name] if pt111 is not None else None
    slabs = rank([results[plan.name] for plan in plans], chosen, reference)
    return ScreenResult(
        slabs, model, chosen, reference, source, ledger.n_relaxed, ledger.n_reused
    )


@dataclass(frozen=True)
class _Screening:
    """First all clean slabs, then all adsorbates on those that came to rest."""

    settings: ScreenSettings
    store: ResultsStore
    ledger: Ledger
    relaxes_clean: bool
    gas: dict[str, float]

    @classmethod
    def of(
        cls,
        model: ModelInfo,
        settings: ScreenSettings,
        store: ResultsStore,
        ledger: Ledger,
    ) -> "_Screening":
        total = model.energy_reference == "total"
        energies = settings.gas_energies(model)
        gas = {
            adsorbate.name: gas_energy(adsorbate.name, adsorbate.composition, energies)
            if total
            else 0.0
            for adsorbate in settings.adsorbates
        }
        return cls(settings, store, ledger, total, gas)

    def results(self, plans: Sequence[SlabPlan]) -> dict[str, SlabResult]:
        """Return what became of every slab, by name."""
        usable = [plan for plan in plans if plan.slab is not None]
        n_clean = len(usable) if self.relaxes_clean else 0
        self.ledger.total = n_clean + sum(len(plan.starts) for plan in usable)
        if self.relaxes_clean:
            self.ledger.complete(self._clean_task(plan) for plan in usable)
        at_rest = [plan for plan in usable if self._is_at_rest(plan)]
        self.ledger.total = n_clean + sum(len(plan.starts) for plan in at_rest)
        self.ledger.complete(
            task for plan in at_rest for task in self._site_tasks(plan)
        )
        return {plan.name: self._slab(plan) for plan in plans}

    def _key(self, plan: SlabPlan, start: Start | None) -> str:
        assert plan.slab is not None
        where = start.key if start is not None else ""
        return relaxation_key(plan.slab.atoms, where, self.store.conditions)

    def _clean_task(self, plan: SlabPlan) -> Task:
        assert plan.slab is not None
        atoms = plan.slab.atoms
        return Task(self._key(plan, None), plan, None, atoms, atoms)

    def _clean_record(self, plan: SlabPlan) -> RelaxationRecord | None:
        if not self.relaxes_clean:
            return None
        return self.ledger.record(self._key(plan, None), plan.name)

    def _is_at_rest(self, plan: SlabPlan) -> bool:
        record = self._clean_record(plan)
        return record is None or record.is_settled

    def _substrate(self, plan: SlabPlan) -> Atoms:
        """Return the clean slab, relaxed under the same settings where that is done."""
        assert plan.slab is not None
        if not self.relaxes_clean:
            return plan.slab.atoms
        return self.store.atoms(self._key(plan, None))

    def _site_tasks(self, plan: SlabPlan) -> Iterator[Task]:
        assert plan.slab is not None
        clean = self._substrate(plan)
        alone = replace(plan, starts=())  # tasks travel: one start each is enough
        for start in plan.starts:
            initial = place(plan.slab, start, relaxed=clean)
            yield Task(self._key(plan, start), alone, start, initial, clean)

    def _slab(self, plan: SlabPlan) -> SlabResult:
        """Return what became of one slab and all its sites."""
        result = SlabResult(
            plan.name,
            plan.formula,
            plan.status,
            plan.error,
            preparation=plan.preparation,
            warnings=plan.warnings,
        )
        if plan.slab is None:
            return result
        clean = self._clean_record(plan)
        result = replace(result, clean=clean, coverage=1.0 / len(plan.slab.surface))
        if clean is not None and not clean.is_settled:
            return replace(result, status=f"clean_{clean.status}", error=clean.error)
        sites = tuple(self._site(plan, start, clean) for start in plan.starts)
        result = replace(result, sites=sites)
        failed = [
            _without_site(result, adsorbate.name)
            for adsorbate in self.settings.adsorbates
            if result.best_of(adsorbate.name) is None
        ]
        if len(failed) < len(self.settings.adsorbates):
            return replace(result, warnings=(*result.warnings, *failed))
        return replace(result, status="no_valid_site", error="; ".join(failed))

    def _site(
        self, plan: SlabPlan, start: Start, clean: RelaxationRecord | None
    ) -> SiteResult:
        record = self.ledger.record(self._key(plan, start), plan.name)
        name = start.adsorbate.name
        dE = dG = None
        if record.status in ADSORBED and record.energy is not None:
            substrate = clean.energy or 0.0 if clean is not None else 0.0
            dE = record.energy - substrate - self.gas[name]
            dG = free_energy(dE, name, corrections=self.settings.corrections)
        site = start.site
        return SiteResult(
            record, site.elements, site.multiplicity, dE, dG, site.environment
        )


def _without_site(slab: SlabResult, adsorbate: str) -> str:
    counts = Counter(site.record.status for site in slab.of(adsorbate))
    statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
    return f"{adsorbate}* has no valid site: {statuses or 'none was found'}"
