"""Screening: adsorption energies on all sites of all slabs, ranked for the ORR."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from crack_md.progress import Report
from crack_md.structures import StructureEntry, with_unique_names
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.orr import (
    INTERMEDIATES,
    NO_SOLVATION,
    FreeEnergyDiagram,
    free_energy,
    gas_energy,
    limiting_potential_band,
    orr_diagram,
)
from crack_md.workflows.relax.store import (
    ADSORBED,
    RelaxationRecord,
    ResultsStore,
    relaxation_key,
)
from crack_md.workflows.screening.coverage import cover_slabs, require_coverages
from crack_md.workflows.screening.plan import (
    ScreenSettings,
    SlabPlan,
    plan_pt111,
    plan_slab,
)
from crack_md.workflows.screening.relaxations import (
    RelaxationQueue,
    Runner,
    SiteRelaxation,
    bind_settings,
    serial_runner,
)
from crack_md.workflows.screening.results import ScreenResult, SiteResult, SlabResult
from crack_md.workflows.screening.stability import assess_stability
from crack_md.workflows.surfaces.adsorbates import Placement, place
from crack_md.workflows.surfaces.outcome import DomainDistance, neighbor_distance

OFF_SCALING_V = 0.2
"""Scaling relations scatter by 0.2 eV; water binds OH* and OOH* by more than that."""


def screen_slabs(
    entries: Sequence[StructureEntry],
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
        ConfigError: no gas energies to refer to, or a coverage that no slab holds.
        DataError: results cannot be written.
    """
    chosen = (settings or ScreenSettings()).for_model(model)
    plans = [
        plan_slab(entry, model=model, settings=chosen)
        for entry in with_unique_names(entries)
    ]
    require_coverages(plans, chosen.coverages)
    pt111, source = plan_pt111(plans, calculator, model, chosen)
    given = pt111 is None or any(plan is pt111 for plan in plans)
    if pt111 is not None and not given:
        names = {plan.name for plan in plans}
        free = (f"{pt111.name}{' by this program' * n}" for n in range(len(names) + 1))
        pt111 = replace(pt111, name=next(name for name in free if name not in names))
    todo = plans if given or pt111 is None else [*plans, pt111]
    function = bind_settings(
        chosen, direct_forces=model.forces == "direct", distance=distance
    )
    queue = RelaxationQueue(
        store, runner or serial_runner(calculator), function, report
    )
    run = _ScreeningRun.of(model, chosen, store, queue)
    results = run.results(todo)
    stability = {}
    if chosen.stability:
        stability = assess_stability(
            plans,
            results[: len(plans)],
            run,
            settings=chosen,
            calculator=calculator,
            distance=distance,
        )
    coverages = {}
    if chosen.coverages:
        coverages = cover_slabs(
            plans,
            results[: len(plans)],
            run,
            coverages=chosen.coverages,
            model=model,
        )
    reference = None
    if pt111 is not None:
        place = next(n for n, plan in enumerate(todo) if plan is pt111)
        reference = _rate(results[place], chosen, None)
    slabs = rank(results[: len(plans)], chosen, reference)
    return ScreenResult(
        slabs,
        model,
        chosen,
        reference,
        source,
        queue.n_relaxed,
        queue.n_reused,
        stability,
        coverages,
    )


@dataclass(frozen=True)
class _ScreeningRun:
    """First all clean slabs, then all adsorbates on those that came to rest."""

    settings: ScreenSettings
    store: ResultsStore
    queue: RelaxationQueue
    relaxes_clean: bool
    gas: dict[str, float]
    cleaned: set[str] = field(default_factory=set)
    """Names of slabs that were relaxed clean, in this part or an earlier one."""

    @classmethod
    def of(
        cls,
        model: ModelInfo,
        settings: ScreenSettings,
        store: ResultsStore,
        queue: RelaxationQueue,
    ) -> "_ScreeningRun":
        total = model.energy_reference == "total"
        energies = settings.gas_energies(model)
        gas = {
            adsorbate.name: gas_energy(adsorbate.name, adsorbate.composition, energies)
            if total
            else 0.0
            for adsorbate in settings.adsorbates
        }
        return cls(settings, store, queue, total, gas)

    def results(self, plans: Sequence[SlabPlan]) -> list[SlabResult]:
        """Return what became of every slab, in the order given."""
        usable = [plan for plan in plans if plan.slab is not None]
        new = [plan for plan in usable if plan.name not in self.cleaned]
        new = new if self.relaxes_clean else []
        self.queue.begin_part(len(new) + sum(len(plan.starts) for plan in usable))
        self.queue.complete(self._clean_task(plan) for plan in new)
        self.cleaned.update(plan.name for plan in new)
        at_rest = [plan for plan in usable if self._is_at_rest(plan)]
        self.queue.total = len(new) + sum(len(plan.starts) for plan in at_rest)
        self.queue.complete(task for plan in at_rest for task in self._site_tasks(plan))
        return [self._slab(plan) for plan in plans]

    def _key(self, plan: SlabPlan, start: Placement | None) -> str:
        assert plan.slab is not None
        where, conditions = "", dict(self.store.conditions)
        if start is not None:
            # sites are numbered, and ends named, among those of the exposed atoms
            where, conditions["surface"] = start.key, plan.slab.surface.tolist()
        return relaxation_key(plan.slab.atoms, where, conditions)

    def _clean_task(self, plan: SlabPlan) -> SiteRelaxation:
        assert plan.slab is not None
        atoms = plan.slab.atoms
        return SiteRelaxation(self._key(plan, None), plan, None, atoms, atoms)

    def _clean_record(self, plan: SlabPlan) -> RelaxationRecord | None:
        if not self.relaxes_clean:
            return None
        return self.queue.record(self._key(plan, None), plan.name)

    def _is_at_rest(self, plan: SlabPlan) -> bool:
        record = self._clean_record(plan)
        return record is None or record.is_settled

    def _substrate(self, plan: SlabPlan) -> Atoms:
        """Return the clean slab, relaxed under the same settings where that is done."""
        assert plan.slab is not None
        if not self.relaxes_clean:
            return plan.slab.atoms
        return self.store.atoms(self._key(plan, None))

    def _site_tasks(self, plan: SlabPlan) -> Iterator[SiteRelaxation]:
        assert plan.slab is not None
        clean = self._substrate(plan)
        alone = replace(plan, starts=())  # tasks travel: one start each is enough
        for start in plan.starts:
            initial = place(plan.slab, start, relaxed=clean)
            yield SiteRelaxation(self._key(plan, start), alone, start, initial, clean)

    def _slab(self, plan: SlabPlan) -> SlabResult:
        """Return what became of one slab and all its sites."""
        result = SlabResult(
            plan.name,
            plan.formula,
            plan.status,
            plan.error,
            preparation=plan.preparation,
            warnings=plan.warnings,
            columns=plan.columns,
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
        self, plan: SlabPlan, start: Placement, clean: RelaxationRecord | None
    ) -> SiteResult:
        record = self.queue.record(self._key(plan, start), plan.name)
        name = start.adsorbate.name
        dE = dG = None
        if record.status in ADSORBED and record.energy is not None:
            substrate = clean.energy or 0.0 if clean is not None else 0.0
            dE = record.energy - substrate - len(start.sites) * self.gas[name]
            if not start.others:
                dG = free_energy(
                    dE,
                    name,
                    corrections=self.settings.corrections,
                    solvation=self.settings.solvation,
                )
        site = start.site
        return SiteResult(
            record, site.elements, site.multiplicity, dE, dG, site.environment
        )


def _without_site(slab: SlabResult, adsorbate: str) -> str:
    counts = Counter(site.record.status for site in slab.of(adsorbate))
    statuses = ", ".join(f"{count} {status}" for status, count in counts.items())
    why = next((site.record.error for site in slab.of(adsorbate)), "")
    reason = f" ({why})" if why else ""
    return f"{adsorbate}* has no valid site: {statuses or 'none was found'}{reason}"


def rank(
    slabs: Sequence[SlabResult],
    settings: ScreenSettings,
    pt111: SlabResult | None = None,
) -> tuple[SlabResult, ...]:
    """Return the slabs by falling limiting potential; failures come last.

    Where no intermediate of oxygen reduction was screened, the strongest adsorption of
    the first adsorbate comes first.
    """
    rated = [_rate(slab, settings, pt111) for slab in slabs]
    good = [slab for slab in rated if _order(slab) is not None]
    bad = [slab for slab in rated if _order(slab) is None]
    good.sort(key=lambda slab: (_order(slab) or 0.0, slab.name))
    ranked = [replace(slab, rank=place) for place, slab in enumerate(good, start=1)]
    return (*ranked, *bad)


def _order(slab: SlabResult) -> float | None:
    """Return what slabs are sorted by, rising; None for those without a result."""
    if slab.status != "ok":
        return None
    if slab.limiting_potential is not None:
        return -slab.limiting_potential
    return slab.best.adsorption_energy if slab.best is not None else None


def _rate(
    slab: SlabResult, settings: ScreenSettings, pt111: SlabResult | None
) -> SlabResult:
    """Return a slab with its diagram, its potentials and its distance to Pt(111)."""
    if slab.status != "ok":
        return slab
    energies, free_energies = _best_energies(slab)
    origin = _best_energies(pt111)[0] if pt111 is not None else {}
    slab = replace(
        slab,
        energies_vs_pt111={
            name: energy - origin[name]
            for name, energy in energies.items()
            if name in origin
        },
    )
    steps = {n: free_energies[n] for n in INTERMEDIATES if n in free_energies}
    if not steps:
        return slab
    diagram = orr_diagram(steps, scaling=settings.scaling_set)
    slab = replace(
        slab, warnings=(*slab.warnings, *_off_scaling(steps, diagram, settings))
    )
    return replace(
        slab,
        diagram=diagram,
        limiting_potential=diagram.limiting_potential,
        overpotential=diagram.overpotential,
        limiting_potential_band=limiting_potential_band(
            {name: energies[name] for name in steps}, solvation=settings.solvation
        ),
    )


def _off_scaling(
    steps: Mapping[str, float], diagram: FreeEnergyDiagram, settings: ScreenSettings
) -> Iterator[str]:
    """Yield a warning where computed intermediates and scaling tell different U_L."""
    first = settings.adsorbate if settings.adsorbate in steps else next(iter(steps))
    alone = orr_diagram({first: steps[first]}, scaling=settings.scaling_set)
    apart = diagram.limiting_potential - alone.limiting_potential
    if abs(apart) > OFF_SCALING_V:
        water = settings.solvation_set
        words = "without water around them"
        words = words if water == NO_SOLVATION else f"with water by {water}"
        yield (
            f"U_L is {diagram.limiting_potential:.2f} V by {', '.join(steps)} as "
            f"computed, {words}, and "
            f"{alone.limiting_potential:.2f} V by {first} and scaling"
        )


def _best_energies(slab: SlabResult) -> tuple[dict[str, float], dict[str, float]]:
    """Return ΔE and ΔG in eV of every adsorbate on its best site."""
    energies, free_energies = {}, {}
    for name in dict.fromkeys(site.record.adsorbate for site in slab.sites):
        best = slab.best_of(name)
        if best is not None and best.adsorption_energy is not None:
            energies[name] = best.adsorption_energy
            if best.free_energy is not None:
                free_energies[name] = best.free_energy
    return energies, free_energies
