"""The ranking of a screening under uncertainty: intervals, probabilities of ranks.

    model  →  (on the scale of the model that re-scored the best, if one did)
           →  (corrected by DFT values, if there are any)  →  errors

Slabs that were re-scored, or computed by DFT, take those energies; the linear
correction found on them puts all others on the same scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from crack_md.errors import DataError
from crack_md.workflows.orr import INTERMEDIATES, Volcano, limiting_potentials
from crack_md.workflows.ranking.calibration import (
    Calibration,
    ReferenceValue,
    calibrate,
)
from crack_md.workflows.ranking.errors import (
    DFT_ERROR_EV,
    Estimates,
    RankStatistics,
    rank_statistics,
)
from crack_md.workflows.ranking.results import (
    RankedEnergy,
    RankedSlab,
    Ranking,
    RankSettings,
    Rescored,
)
from crack_md.workflows.screening.reader import Adsorbed, Candidate, SavedScreening


@dataclass(frozen=True, eq=False)
class Evidence:
    """What there is besides the screening, of one adsorbate, by slab."""

    reference: Sequence[ReferenceValue]
    rescored: Mapping[str, Rescored]
    spread_eV: Mapping[str, float]

    @classmethod
    def of(
        cls,
        adsorbate: str,
        reference: Sequence[ReferenceValue],
        rescored: Sequence[Rescored],
        spread_eV: Mapping[tuple[str, str], float],
    ) -> "Evidence":
        """Return what belongs to an adsorbate and counts."""
        return cls(
            [value for value in reference if value.adsorbate == adsorbate],
            {r.slab: r for r in rescored if r.is_usable and r.adsorbate == adsorbate},
            {
                slab: spread
                for (slab, name), spread in spread_eV.items()
                if name == adsorbate
            },
        )


@dataclass(frozen=True, eq=False)
class AdsorbateEstimates:
    """One adsorbate on all slabs that have a result for it."""

    slabs: tuple[str, ...]
    estimates: Estimates
    sources: tuple[str, ...]
    """``model``, ``DFT``, or the name of the model that re-scored it."""
    correction: Calibration | None
    between_models: Calibration | None
    has_committee: bool


def estimate(
    adsorbed: Mapping[str, Adsorbed], known: Evidence, settings: RankSettings
) -> AdsorbateEstimates:
    """Return adsorption energies with errors, and where they come from.

    Args:
        adsorbed: an adsorbate on its best site, by slab.
        known: DFT values, energies by another model, spread of a committee.
        settings: kind of correction, and what is assumed about errors.
    """
    spread = _spread(adsorbed, known.spread_eV)
    predicted, between = _predict(adsorbed, known.rescored, settings)
    estimates, correction = _correct(
        list(adsorbed), predicted, between, spread, known.reference, settings
    )
    source = {slab: result.model for slab, result in known.rescored.items()}
    source |= {value.slab: "DFT" for value in known.reference if value.is_best}
    return AdsorbateEstimates(
        slabs=tuple(adsorbed),
        estimates=estimates,
        sources=tuple(source.get(slab, "model") for slab in adsorbed),
        correction=correction,
        between_models=between,
        has_committee=spread is not None,
    )


def _spread(
    adsorbed: Mapping[str, Adsorbed], given: Mapping[str, float]
) -> Float[ndarray, " slab"] | None:
    """Return the spread of every slab; one that lacks it has the largest of all."""
    found = [given.get(slab, each.spread_eV) for slab, each in adsorbed.items()]
    known = [value for value in found if value is not None]
    if not known:
        return None
    return np.array([max(known) if value is None else value for value in found])


def _predict(
    adsorbed: Mapping[str, Adsorbed],
    rescored: Mapping[str, Rescored],
    settings: RankSettings,
) -> tuple[Estimates, Calibration | None]:
    """Return all energies on the scale of the model that re-scored some of them."""
    screened = np.array([each.dE_eV for each in adsorbed.values()])
    energies = {
        i: rescored[slab].dE_eV for i, slab in enumerate(adsorbed) if slab in rescored
    }
    known = {i: dE for i, dE in energies.items() if dE is not None}
    if not known:
        return Estimates(screened), None
    between = calibrate(
        screened[list(known)],
        np.array(list(known.values())),
        assumed=settings.assumed,
        level=settings.level,
    )
    return between.apply(Estimates(screened)).with_known(known), between


def _correct(
    slabs: Sequence[str],
    predicted: Estimates,
    between: Calibration | None,
    spread: Float[ndarray, " slab"] | None,
    reference: Sequence[ReferenceValue],
    settings: RankSettings,
) -> tuple[Estimates, Calibration | None]:
    """Return what DFT would give, by its values where there are any."""
    if not reference:
        return settings.assumed.apply(predicted, spread, slabs=slabs), None
    at = np.array([slabs.index(value.slab) for value in reference])
    model = np.array([value.model_eV for value in reference])
    if between is not None:
        model = between.apply(Estimates(model)).center_eV
    best = np.array([value.is_best for value in reference])
    correction = calibrate(
        np.where(best, predicted.center_eV[at], model),
        np.array([value.dft_eV for value in reference]),
        spread_eV=None if spread is None else spread[at],
        kind=settings.correction,
        assumed=settings.assumed,
        level=settings.level,
    )
    known = {slabs.index(v.slab): v.dft_eV for v in reference if v.is_best}
    corrected = correction.apply(predicted, spread)
    return corrected.with_known(known, error_eV=DFT_ERROR_EV), correction


def rank_slabs(
    screening: SavedScreening,
    *,
    reference: Sequence[ReferenceValue] = (),
    rescored: Sequence[Rescored] = (),
    spread_eV: Mapping[tuple[str, str], float] | None = None,
    settings: RankSettings | None = None,
) -> Ranking:
    """Return the slabs of a screening by limiting potential, with their chances.

    Args:
        screening: what was screened.
        reference: adsorption energies by DFT.
        rescored: adsorption energies by another model.
        spread_eV: disagreement of a committee by slab and adsorbate; default: that of
            the screening.
        settings: level, seed, and what is assumed about errors.

    Raises:
        ConfigError: no adsorbate is an intermediate of oxygen reduction.
        DataError: no slab has a result.
    """
    chosen, volcano = settings or RankSettings(), screening.volcano
    candidates = _usable(screening)
    if not candidates:
        raise DataError(f"no slab in '{screening.folder}' has a result to rank")
    found: dict[str, AdsorbateEstimates] = {}
    for name in screening.adsorbates:
        on_slabs = {c.slab: a for c in candidates if (a := c.on(name)) is not None}
        if name in INTERMEDIATES and on_slabs:
            known = Evidence.of(name, reference, rescored, spread_eV or {})
            found[name] = estimate(on_slabs, known, chosen)
    energies = [_energies(candidate, found, chosen) for candidate in candidates]
    draws = _drawn_potentials(candidates, found, volcano, chosen)
    statistics = rank_statistics(draws, top=chosen.top)
    slabs = _rows(candidates, energies, draws, statistics, volcano, chosen)
    listed = {candidates[index].slab for index in statistics.shortlist}
    return Ranking(
        slabs=slabs,
        settings=chosen,
        adsorbates=tuple(found),
        rank_level=statistics.level,
        shortlist=tuple(row.slab for row in slabs if row.slab in listed),
        corrections={n: e.correction for n, e in found.items() if e.correction},
        between_models={
            n: e.between_models for n, e in found.items() if e.between_models
        },
        reference_values=tuple(reference),
        has_committee=any(each.has_committee for each in found.values()),
    )


def _usable(screening: SavedScreening) -> list[Candidate]:
    """Return the slabs with a free energy of an intermediate, best first."""
    return [
        candidate
        for candidate in screening.candidates
        if any(_has_free_energy(candidate, name) for name in INTERMEDIATES)
    ]


def _has_free_energy(candidate: Candidate, adsorbate: str) -> bool:
    found = candidate.on(adsorbate)
    return found is not None and found.dG_eV is not None


def _energies(
    candidate: Candidate,
    found: Mapping[str, AdsorbateEstimates],
    settings: RankSettings,
) -> tuple[RankedEnergy, ...]:
    """Return the corrected energies of a slab with their intervals."""
    energies = []
    for name, each in found.items():
        adsorbed = candidate.on(name)
        if adsorbed is None or adsorbed.dG_eV is None:
            continue
        i, to_free = each.slabs.index(candidate.slab), adsorbed.dG_eV - adsorbed.dE_eV
        low, high = (float(end[i]) for end in each.estimates.interval(settings.level))
        center = float(each.estimates.center_eV[i])
        energies.append(
            RankedEnergy(
                adsorbate=name,
                site=adsorbed.site,
                source=each.sources[i],
                screened_dE_eV=adsorbed.dE_eV,
                dE_eV=center,
                dE_low_eV=low,
                dE_high_eV=high,
                dG_eV=center + to_free,
                dG_low_eV=low + to_free,
                dG_high_eV=high + to_free,
            )
        )
    return tuple(energies)


def _drawn_potentials(
    candidates: Sequence[Candidate],
    found: Mapping[str, AdsorbateEstimates],
    volcano: Volcano,
    settings: RankSettings,
) -> Float[ndarray, "draw slab"]:
    """Return joint draws of limiting potentials; adsorbates err independently."""
    drawn = {
        name: each.estimates.sample(settings.draws, seed=(settings.seed, place))
        for place, (name, each) in enumerate(found.items())
    }
    columns = []
    for candidate in candidates:  # all slabs at once would take gigabytes
        known = {}
        for name, each in found.items():
            adsorbed = candidate.on(name)
            if adsorbed is not None and adsorbed.dG_eV is not None:
                to_free = adsorbed.dG_eV - adsorbed.dE_eV
                at = each.slabs.index(candidate.slab)
                known[name] = drawn[name][:, at] + to_free
        columns.append(limiting_potentials(known, volcano.scaling))
    return np.stack(columns, axis=1)


def _rows(
    candidates: Sequence[Candidate],
    energies: Sequence[tuple[RankedEnergy, ...]],
    draws: Float[ndarray, "draw slab"],
    statistics: RankStatistics,
    volcano: Volcano,
    settings: RankSettings,
) -> tuple[RankedSlab, ...]:
    """Return one row per slab by falling limiting potential."""
    free = [{e.adsorbate: np.array(e.dG_eV) for e in each} for each in energies]
    potentials = np.array(
        [float(limiting_potentials(known, volcano.scaling)) for known in free]
    )
    rows = []
    for rank, i in enumerate(np.argsort(-potentials, kind="stable"), start=1):
        low, high = _potential_interval(energies[i], draws[:, i], volcano, settings)
        rows.append(
            RankedSlab(
                rank=rank,
                screen_rank=candidates[i].rank,
                slab=candidates[i].slab,
                formula=candidates[i].formula,
                energies=energies[i],
                U_L_V=float(potentials[i]),
                U_L_low_V=low,
                U_L_high_V=high,
                p_best=float(statistics.p_best[i]),
                p_top=float(statistics.p_top[i]),
                rank_low=int(statistics.low[i]),
                rank_high=int(statistics.high[i]),
            )
        )
    return tuple(rows)


def _potential_interval(
    energies: Sequence[RankedEnergy],
    draws: Float[ndarray, " draw"],
    volcano: Volcano,
    settings: RankSettings,
) -> tuple[float, float]:
    """Return the interval of U_L: exact for one adsorbate, of the draws for several."""
    if len(energies) > 1:
        tails = [(1 - settings.level) / 2, (1 + settings.level) / 2]
        low, high = np.quantile(draws, tails)
        return float(low), float(high)
    (only,) = energies
    alone = Volcano(only.adsorbate, volcano.scaling)
    ends = np.array([only.dG_low_eV]), np.array([only.dG_high_eV])
    lowest, highest = alone.potential_range(*ends)
    return float(lowest[0]), float(highest[0])
