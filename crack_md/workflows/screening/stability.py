"""The stability of screened slabs: their variants are relaxed as the slabs were."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from ase.build import bulk
from ase.calculators.calculator import BaseCalculator

from crack_md.workflows.screening.plan import ScreenSettings, SlabPlan, starts_on
from crack_md.workflows.screening.results import RelaxesPlans, SlabResult
from crack_md.workflows.stability.metals import Metal, relax_metal
from crack_md.workflows.stability.stability import (
    SlabStability,
    SlabVariant,
    SlabVariants,
    VariantEnergy,
    lowest,
)
from crack_md.workflows.surfaces.outcome import DomainDistance
from crack_md.workflows.surfaces.sites import find_sites

log = logging.getLogger(__name__)


def assess_stability(
    plans: Sequence[SlabPlan],
    results: Sequence[SlabResult],
    run: RelaxesPlans,
    *,
    settings: ScreenSettings,
    calculator: BaseCalculator,
    distance: DomainDistance,
) -> dict[str, SlabStability]:
    """Return the stability of every slab whose clean surface came to rest, by name.

    Args:
        plans: of the slabs.
        results: of the same.
        run: relaxes the variants.
        settings: the first adsorbate is put on swapped surfaces.
        calculator: of bulk metals.
        distance: how far these are from what the model knows.
    """
    settled = {
        plan.name: (plan, result)
        for plan, result in zip(plans, results, strict=True)
        if plan.slab is not None and result.clean and result.clean.is_settled
    }
    elements = {s for plan, _ in settled.values() for s in _symbols(plan)}
    metals = known_metals(sorted(elements), calculator, distance)
    slabs = {name: _slab_variants(*both, metals) for name, both in settled.items()}
    failed = {name: reason for name, slab in slabs.items() if (reason := _fault(slab))}
    slabs = {name: slab for name, slab in slabs.items() if name not in failed}
    energies = _relax_variants(slabs, run)
    best = settings.adsorbates[0].name
    risen = {
        (name, found.variant.label): _with_starts(name, found.variant, settings)
        for name, each in energies.items()
        for element in slabs[name].elements
        if (found := lowest(each, "swap", element)) is not None
        and settled[name][1].best_of(best) is not None
    }
    covered = dict(zip(risen, run.results(list(risen.values())), strict=True))

    def assess(name: str) -> SlabStability:
        own = settled[name][1].best_of(best)

        def stronger(variant: SlabVariant) -> float | None:
            found = covered.get((name, variant.label))
            on_it = None if found is None else found.best_of(best)
            if own is None or own.adsorption_energy is None or on_it is None:
                return None
            return (on_it.adsorption_energy or 0.0) - own.adsorption_energy

        return slabs[name].assess(energies[name], stronger)

    assessed = {name: assess(name) for name in slabs}
    return assessed | {n: SlabStability(None, (), (why,)) for n, why in failed.items()}


def known_metals(
    symbols: Iterable[str], calculator: BaseCalculator, distance: DomainDistance
) -> dict[str, Metal | None]:
    """Return the bulk metals by the model; None where it cannot know one."""

    def of(symbol: str) -> Metal | None:
        try:
            metal = relax_metal(symbol, calculator)
            crystal = bulk(symbol, "fcc", a=metal.neighbor_A * 2**0.5)
        except Exception as error:  # it must not end a night's screening
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            log.warning("bulk %s cannot be relaxed: %s", symbol, reason)
            return None
        return metal if distance(crystal)[0] <= 1 else None

    return {symbol: of(symbol) for symbol in symbols}


def _symbols(plan: SlabPlan) -> set[str]:
    assert plan.slab is not None
    return set(map(str, plan.slab.atoms.symbols))


def _slab_variants(
    plan: SlabPlan, result: SlabResult, metals: Mapping[str, Metal | None]
) -> SlabVariants:
    assert plan.slab is not None
    assert result.clean is not None
    return SlabVariants(plan.slab, result.clean.energy or 0.0, metals)


def _fault(slab: SlabVariants) -> str:
    """Return why a slab has no variants; empty where they could be made."""
    try:
        _ = slab.all
    except Exception as error:  # one odd structure must not end a night's screening
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return ""


def _relax_variants(
    slabs: Mapping[str, SlabVariants], run: RelaxesPlans
) -> dict[str, list[VariantEnergy]]:
    listed = [(name, each) for name, slab in slabs.items() for each in slab.all]
    results = run.results([_plan(name, variant) for name, variant in listed])
    energies: dict[str, list[VariantEnergy]] = {name: [] for name in slabs}
    for (name, variant), result in zip(listed, results, strict=True):
        clean = result.clean
        settled = clean is not None and clean.is_settled
        energy = clean.energy if clean is not None and settled else None
        status = clean.status if clean is not None else result.status
        energies[name].append(VariantEnergy(variant, energy, status))
    return energies


def _plan(name: str, variant: SlabVariant) -> SlabPlan:
    formula = variant.slab.atoms.get_chemical_formula(mode="metal")
    return SlabPlan(f"{name}: {variant.label}", formula, variant.slab)


def _with_starts(name: str, variant: SlabVariant, settings: ScreenSettings) -> SlabPlan:
    """Return the plan of a swapped slab with the first adsorbate on all its sites."""
    first, bare = settings.adsorbates[:1], _plan(name, variant)
    try:
        sites = {
            each.binding: find_sites(variant.slab, adsorbate=each.binding)
            for each in first
        }
        starts = starts_on(variant.slab, sites, replace(settings, adsorbates=first))
        return replace(bare, sites=sites, starts=tuple(starts))
    except Exception:  # its segregation under the adsorbate stays unknown
        return bare
