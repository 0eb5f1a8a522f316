"""O* at higher coverages: places for it on a slab, and how its atoms repel each other.

With n O* on the slab, E₁(i) the adsorption energy of O* alone on site i of the same
cell, and N(n) pairs of O* nearer than 3.3 Å, periodic images included:

    total         ΔE(n) = E(slab with n O) - E(slab) - n [E(H2O) - E(H2)]
    mean          ΔE(n)/n
    differential  [ΔE(n) - ΔE(m)]/(n - m), m the next lower coverage with a result
    lateral       [ΔE(n) - Σ E₁(i)]/[N(n) - Σ N₁(i)]

N₁ counts the pairs that one O* has with its own images: none in cells wider than 3.3 Å.
The hollow that binds O* most strongly decides which kind of hollow is filled. Of all
choices of n such hollows that is taken which has the largest smallest distance; of
these the one with the fewest pairs, then the one where single O* bind most strongly.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry import minkowski_reduce
from numpy.typing import NDArray

from crack_md.errors import ConfigError
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.screening.plan import ScreenSettings, SlabPlan
from crack_md.workflows.screening.reader import KEY, coverage_columns
from crack_md.workflows.screening.results import (
    TIE_EV,
    CoveredSlab,
    RelaxesPlans,
    ScreenResult,
    SiteResult,
    SlabResult,
)
from crack_md.workflows.surfaces.adsorbates import ADSORBATES, Placement
from crack_md.workflows.surfaces.sites import HOLLOWS, Site, describe
from crack_md.workflows.surfaces.slab import Slab
from crack_md.workflows.surfaces.surface_atoms import ContactSurface, Points

NEIGHBOR_A = 3.3
"""O* in neighboring hollows of metals are 2.4 to 3.0 Å apart, the next 3.5 Å."""
NEAREST_A = 2.0
"""Oxygen atoms nearer than 1.92 Å count as bonded to each other."""
SAME_A = 0.01
HALF_DIGIT = 0.005
"""Coverages are meant to two decimals: 0.33 is a third."""
MOST_CHOICES = 200_000
OXYGEN = ADSORBATES["O"]


def parse_coverages(text: str | None) -> tuple[float, ...]:
    """Return the coverages in ``0.25,0.5``, in monolayers.

    Raises:
        ConfigError: one is no number.
    """
    try:
        return tuple(float(part) for part in (text or "").split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(
            f"cannot read --coverage '{text}'; expected monolayers such as 0.25,0.5"
        ) from error


def count_on(slab: Slab, coverage: float) -> int | None:
    """Return how many adsorbates make a coverage; None where no whole number does."""
    n_surface = len(slab.surface)
    count = round(coverage * n_surface)
    is_near = abs(count / n_surface - coverage) < HALF_DIGIT
    return count if count and is_near else None


def require_coverages(plans: Sequence[SlabPlan], coverages: Iterable[float]) -> None:
    """Raise ConfigError for a coverage that none of the slabs can hold exactly."""
    slabs = [plan.slab for plan in plans if plan.slab is not None]
    for coverage in coverages:
        if slabs and not any(count_on(slab, coverage) for slab in slabs):
            sizes = list(dict.fromkeys(f"a cell {_holds(slab)}" for slab in slabs))
            raise ConfigError(
                f"no slab can hold a coverage of {coverage:g} ML exactly: "
                f"{'; '.join(sizes[:3])}{' ...' if sizes[3:] else ''}"
            )


def _holds(slab: Slab, most: int | None = None) -> str:
    """Return in words which coverages a cell holds."""
    n_surface = len(slab.surface)
    n_places = n_surface if most is None else min(most, n_surface)
    listed = ", ".join(f"{n / n_surface:.2g}" for n in range(1, n_places + 1))
    if n_places > 9:
        listed = f"multiples of 1/{n_surface} up to {n_places / n_surface:.2g}"
    return f"of {n_surface} surface atoms holds {listed} ML"


def cover_slabs(
    plans: Sequence[SlabPlan],
    results: Sequence[SlabResult],
    run: RelaxesPlans,
    *,
    coverages: Sequence[float],
    model: ModelInfo,
) -> dict[str, tuple[CoveredSlab, ...]]:
    """Return O* at all coverages of every slab that has a result, by name.

    Args:
        plans: of the slabs.
        results: of the same: O* alone on each site.
        run: relaxes the covered slabs.
        coverages: in monolayers, rising.
        model: what it says of its training data is a note.
    """
    todo, failed = [], {}
    for plan, result in zip(plans, results, strict=True):
        if plan.slab is None or result.status != "ok":
            continue
        try:
            todo.append(_SlabCoverages.of(plan, result, coverages))
        except Exception as error:  # one odd structure must not end a night's screening
            why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            rows = (CoveredSlab(each, "failed", note=why) for each in coverages)
            failed[plan.name] = tuple(rows)
    found = run.results([each.plan for each in todo])
    note = _note_of(model)
    return failed | {
        each.plan.name: each.rows(result.sites, note)
        for each, result in zip(todo, found, strict=True)
    }


def _note_of(model: ModelInfo) -> str:
    if model.dtype is None or model.limits is not None:  # no network, or it says so
        return ""
    return (
        "the model does not say up to which coverage its training data went; its "
        "energy may mean nothing"
    )


@dataclass(frozen=True, eq=False)
class Hollows:
    """The places of a slab that O* may take together, and O* alone on each."""

    sites: tuple[Site, ...]
    energies: NDArray[np.float64]
    """Of O* alone in eV."""
    nearest: NDArray[np.float64]
    """(place, place) smallest distance in Å, images included."""
    pairs: NDArray[np.int_]
    """(place, place) how many images are neighbors."""

    @classmethod
    def of(cls, slab: Slab, classes: Iterable[tuple[Site, float]]) -> "Hollows":
        """Return all members of some classes of sites."""
        surface = ContactSurface.around(slab.atoms, OXYGEN.binding)
        sites, energies = [], []
        for site, energy in classes:
            for number, member in enumerate(site.members, start=1):
                place = describe(surface.resting_point(member[:2]), surface, slab)
                sites.append(replace(place, label=f"{site.label}#{number}"))
                energies.append(energy)
        positions = np.array([site.position for site in sites]).reshape(-1, 3)
        apart = _apart(positions, slab.atoms)
        pairs = (apart < NEIGHBOR_A).sum(axis=-1)
        return cls(tuple(sites), np.array(energies), apart.min(axis=-1), pairs)

    def choose(self, count: int) -> NDArray[np.int_] | None:
        """Return the best places for some O*; None where none are 2 Å apart."""
        choices = np.array(list(combinations(range(len(self.sites)), count)))
        first, second = np.triu_indices(count)
        ends = choices[:, first], choices[:, second]
        nearest = self.nearest[ends].min(axis=1)
        # each pair is seen once, but one with an own image from both sides
        pairs = (self.pairs[ends] / np.where(first == second, 2, 1)).sum(axis=1)
        energies = self.energies[choices].sum(axis=1)
        kept = np.flatnonzero(nearest > nearest.max() - SAME_A)
        kept = kept[pairs[kept] < pairs[kept].min() + 0.5]
        kept = kept[energies[kept] <= energies[kept].min() + TIE_EV]
        best = kept[0]
        return choices[best] if nearest[best] > NEAREST_A else None

    def n_pairs(self, places: Sequence[int]) -> int:
        """Return how many pairs of neighbors O* on these places form."""
        chosen = self.pairs[np.ix_(places, places)]
        return int(chosen.sum()) // 2


def _apart(positions: Points, atoms: Atoms) -> NDArray[np.float64]:
    """Return (place, place, image) distances in Å; infinite from a place to itself."""
    reduced, _ = minkowski_reduce(atoms.cell, pbc=[True, True, False])
    a, b = np.asarray(reduced)[:2]
    shifts = np.array([i * a + j * b for i in range(-2, 3) for j in range(-2, 3)])
    vectors = positions[None, :, None] - positions[:, None, None] + shifts
    distances: NDArray[np.float64] = np.linalg.norm(vectors, axis=-1)
    distances[distances < SAME_A] = np.inf
    return distances


@dataclass(frozen=True, eq=False)
class _SlabCoverages:
    """What is to be relaxed of one slab, and what it will be compared with."""

    plan: SlabPlan
    """With one start for each coverage of two O* and more."""
    hollows: Hollows
    chosen: Mapping[int, NDArray[np.int_]]
    """Places by number of O*."""
    single: SiteResult | None
    """O* alone on the best hollow."""
    asked: tuple[tuple[float, int | None, str], ...]
    """Coverage, number of O*, and why there are none."""

    @classmethod
    def of(
        cls, plan: SlabPlan, result: SlabResult, coverages: Sequence[float]
    ) -> "_SlabCoverages":
        assert plan.slab is not None
        single, classes = _best_hollows(plan, result)
        hollows = Hollows.of(plan.slab, classes)
        chosen: dict[int, NDArray[np.int_]] = {}
        asked = []
        for coverage in coverages:
            count = count_on(plan.slab, coverage)
            fault = why_not(plan.slab, count, hollows)
            if count is not None and not fault and count not in chosen:
                places = hollows.choose(count)
                if places is None:
                    fault = f"no {count} hollows are {NEAREST_A:g} Å apart"
                else:
                    chosen[count] = places
            asked.append((coverage, count, fault))
        starts = tuple(
            Placement(OXYGEN, first, others=tuple(rest))
            for count, places in chosen.items()
            if count > 1
            for first, *rest in ([hollows.sites[i] for i in places],)
        )
        alone = replace(plan, starts=starts)
        return cls(alone, hollows, chosen, single, tuple(asked))

    def rows(self, sites: Sequence[SiteResult], note: str) -> tuple[CoveredSlab, ...]:
        """Return one row for each coverage that was asked for."""
        by_label = {site.record.site: site for site in sites}
        starts = self.plan.starts
        found = {len(start.sites): by_label[start.label] for start in starts}
        totals = {0: 0.0}
        if self.single is not None:
            found[1] = self.single
        for count, site in found.items():
            if site.is_valid and site.adsorption_energy is not None:
                totals[count] = site.adsorption_energy
        return tuple(
            self._refused(coverage, fault)
            if count is None or fault
            else self._row(coverage, count, found[count], totals, note)
            for coverage, count, fault in self.asked
        )

    def _refused(self, coverage: float, fault: str) -> CoveredSlab:
        return CoveredSlab(coverage, "not_held", note=fault)

    def _row(
        self,
        coverage: float,
        count: int,
        site: SiteResult,
        totals: Mapping[int, float],
        note: str,
    ) -> CoveredSlab:
        assert self.plan.slab is not None
        n_surface, record = len(self.plan.slab.surface), site.record
        places = self.chosen[count].tolist()
        notes = [record.error.replace(";", ","), note if count > 1 else ""]
        if record.migrated:
            notes.append(f"ended on {record.final_site}: no lateral interaction")
        row = CoveredSlab(
            coverage,
            record.status,
            coverage_ML=count / n_surface,
            n_adsorbed=count,
            sites=" + ".join(self.hollows.sites[i].label for i in places),
            nearest_A=float(self.hollows.nearest[np.ix_(places, places)].min()),
            n_pairs=self.hollows.n_pairs(places),
            domain_distance=record.domain_distance,
            key=record.key,
            note=", ".join(filter(None, notes)),
        )
        if count not in totals:
            return row
        lower = max(n for n in totals if n < count)
        alone = sum(self.hollows.n_pairs([place]) for place in places)
        own = float(self.hollows.energies[places].sum())
        further = self.hollows.n_pairs(places) - alone
        has_lateral = further > 0 and not record.migrated
        return replace(
            row,
            mean_eV=totals[count] / count,
            differential_eV=(totals[count] - totals[lower]) / (count - lower),
            lower_ML=lower / n_surface,
            lateral_eV=(totals[count] - own) / further if has_lateral else None,
        )


def why_not(slab: Slab, count: int | None, hollows: Hollows) -> str:
    """Return why a number of O* cannot be placed; empty where they may be."""
    n_places = len(hollows.sites)
    if not n_places:
        return "O* alone stays on no hollow site"
    if count is None or count > n_places:
        kind = hollows.sites[0].kind
        few = f", as O* alone stays on {n_places} {kind} sites"
        few = few if n_places < len(slab.surface) else ""
        return f"a cell {_holds(slab, n_places)}{few}"
    n_choices = comb(n_places, count)
    if n_choices > MOST_CHOICES:
        return (
            f"{n_choices:,} ways to put {count} O on {n_places} hollows are too many "
            "to compare: take a smaller cell"
        )
    return ""


def _best_hollows(
    plan: SlabPlan, result: SlabResult
) -> tuple[SiteResult | None, list[tuple[Site, float]]]:
    """Return O* on its best hollow, and all hollows of that kind where O* alone stays.

    Each with the energy of O* alone in eV.
    """
    classes = {site.label: site for site in plan.sites[OXYGEN.binding]}
    known = [
        (found.adsorption_energy, found, classes[found.record.site])
        for found in result.of(OXYGEN.name)
        if found.is_valid
        and not found.record.migrated
        and found.adsorption_energy is not None
        and found.record.site in classes
    ]
    hollows = [each for each in known if each[2].kind in HOLLOWS]
    if not hollows:
        return None, []
    _, single, best = min(hollows, key=lambda each: each[0])
    return single, [(site, e) for e, _, site in hollows if site.kind == best.kind]


def coverage_cells(slab: str, result: ScreenResult) -> dict[str, Any]:
    """Return the columns of results.csv about a slab; coverage.csv has the rest."""
    rows = {each.asked_ML: each for each in result.coverages.get(slab, ())}
    columns: dict[str, Any] = {}
    for asked in result.settings.coverages:
        names, found = coverage_columns(asked), rows.get(asked)
        columns[names.mean] = None if found is None else found.mean_eV
        columns[names.differential] = None if found is None else found.differential_eV
        columns[names.lateral] = None if found is None else found.lateral_eV
    notes = [f"{each.asked_ML:g} ML: {each.note}" for each in rows.values()]
    kept = [note for note, each in zip(notes, rows.values(), strict=True) if each.note]
    return columns | {"coverage_notes": "; ".join(kept)}


def coverage_rows(result: ScreenResult) -> list[dict[str, Any]]:
    """Return one row per slab and coverage that was asked for."""
    return [
        {
            "slab": slab.name,
            "asked_ML": each.asked_ML,
            "status": each.status,
            "coverage_ML": each.coverage_ML,
            "n_O": each.n_adsorbed,
            "sites": each.sites,
            "smallest_O_O_A": each.nearest_A,
            "n_pairs": each.n_pairs,
            "dE_mean_O_H2O_H2_eV": each.mean_eV,
            "dE_differential_O_H2O_H2_eV": each.differential_eV,
            "lower_coverage_ML": each.lower_ML,
            "lateral_eV_per_pair": each.lateral_eV,
            "domain_distance": each.domain_distance,
            "note": each.note,
            KEY: each.key,
        }
        for slab in result.slabs
        for each in result.coverages.get(slab.name, ())
    ]


def coverage_settings(settings: ScreenSettings) -> dict[str, Any]:
    """Return what summary.json says about coverages."""
    return {
        "coverage_adsorbate": OXYGEN.name,
        "coverages_ML": list(settings.coverages),
        "neighbors_nearer_than_A": NEIGHBOR_A,
    }
