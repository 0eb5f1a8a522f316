"""The ranking of a screening under uncertainty, and its files.

    model  →  (on the scale of the model that re-scored the best, if one did)
           →  (corrected by DFT values, if there are any)  →  errors  →  ΔG  →  U_L

Slabs that were re-scored, or computed by DFT, take those energies; the linear
correction found on them puts all others on the same scale.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from crack_md.errors import DataError
from crack_md.workflows.activity import Volcano
from crack_md.workflows.calibration import Calibration, calibrate
from crack_md.workflows.dft_values import ReferenceValue
from crack_md.workflows.ranking_records import RankedSlab, Ranking, RankSettings
from crack_md.workflows.resampling import RankStatistics, rank_statistics
from crack_md.workflows.rescore import Rescored
from crack_md.workflows.results_folder import Candidate, Screening
from crack_md.workflows.uncertainty import Estimates


def rank_slabs(
    screening: Screening,
    *,
    reference: Sequence[ReferenceValue] = (),
    rescored: Sequence[Rescored] = (),
    spread_eV: Mapping[str, float] | None = None,
    settings: RankSettings | None = None,
) -> Ranking:
    """Return the slabs of a screening by limiting potential, with their chances.

    Args:
        screening: what was screened.
        reference: adsorption energies by DFT.
        rescored: adsorption energies by another model.
        spread_eV: disagreement of a committee by slab; default: that of the screening.
        settings: level, seed, and what is assumed about errors.

    Raises:
        ConfigError: the adsorbate is no intermediate of oxygen reduction.
        DataError: no slab has a result.
    """
    chosen = settings or RankSettings()
    volcano = screening.volcano
    # by name: the order of the table must not decide which slab gets which draw
    candidates = sorted(screening.candidates, key=lambda candidate: candidate.slab)
    if not candidates:
        raise DataError(f"no slab in '{screening.folder}' has a result to rank")
    spread = _spread(candidates, spread_eV or {})
    predicted, between = _predicted(candidates, rescored, chosen)
    estimates, correction = _estimated(
        candidates, predicted, between, spread, reference, chosen
    )
    to_free = np.array([c.dG_eV - c.dE_eV for c in candidates])
    draws = estimates.sample(chosen.draws, seed=chosen.seed) + to_free
    statistics = rank_statistics(_potentials(volcano, draws), top=chosen.top)
    slabs = _rows(candidates, estimates, statistics, volcano, chosen)
    listed = {candidates[index].slab for index in statistics.shortlist}
    return Ranking(
        slabs=_with_sources(slabs, reference, rescored),
        settings=chosen,
        adsorbate=screening.adsorbate,
        rank_level=statistics.level,
        shortlist=tuple(row.slab for row in slabs if row.slab in listed),
        correction=correction,
        between_models=between,
        reference_values=tuple(reference),
        has_committee=spread is not None,
    )


def _spread(
    candidates: Sequence[Candidate], given: Mapping[str, float]
) -> Float[ndarray, " slab"] | None:
    """Return the spread of every slab; one that lacks it has the largest of all."""
    found = [given.get(c.slab, c.spread_eV) for c in candidates]
    known = [value for value in found if value is not None]
    if not known:
        return None
    return np.array([max(known) if value is None else value for value in found])


def _predicted(
    candidates: Sequence[Candidate],
    rescored: Sequence[Rescored],
    settings: RankSettings,
) -> tuple[Estimates, Calibration | None]:
    """Return all energies on the scale of the model that re-scored some of them."""
    screened = np.array([candidate.dE_eV for candidate in candidates])
    again = {r.slab: r.dE_eV for r in rescored if r.counts and r.dE_eV is not None}
    known = {i: again[c.slab] for i, c in enumerate(candidates) if c.slab in again}
    if not known:
        return Estimates(screened), None
    between = calibrate(
        screened[list(known)],
        np.array(list(known.values())),
        assumed=settings.assumed,
        level=settings.level,
    )
    return between.apply(Estimates(screened)).with_known(known), between


def _estimated(
    candidates: Sequence[Candidate],
    predicted: Estimates,
    between: Calibration | None,
    spread: Float[ndarray, " slab"] | None,
    reference: Sequence[ReferenceValue],
    settings: RankSettings,
) -> tuple[Estimates, Calibration | None]:
    """Return what DFT would give, by its values where there are any."""
    if not reference:
        return settings.assumed.apply(predicted, spread), None
    index = {candidate.slab: i for i, candidate in enumerate(candidates)}
    at = np.array([index[value.slab] for value in reference])
    model = np.array([value.model_eV for value in reference])
    if between is not None:
        model = between.apply(Estimates(model)).center_eV
    best = np.array([value.is_best for value in reference])
    model = np.where(best, predicted.center_eV[at], model)
    correction = calibrate(
        model,
        np.array([value.dft_eV for value in reference]),
        spread_eV=None if spread is None else spread[at],
        kind=settings.correction,
        assumed=settings.assumed,
        level=settings.level,
    )
    known = {index[v.slab]: v.dft_eV for v in reference if v.is_best}
    return correction.apply(predicted, spread).with_known(known), correction


def _potentials(
    volcano: Volcano, draws: Float[ndarray, "draw slab"]
) -> Float[ndarray, "draw slab"]:
    # slab by slab: all steps of all draws at once would take gigabytes
    return np.stack([volcano.potential(column) for column in draws.T], axis=1)


def _rows(
    candidates: Sequence[Candidate],
    estimates: Estimates,
    statistics: RankStatistics,
    volcano: Volcano,
    settings: RankSettings,
) -> list[RankedSlab]:
    """Return one row per slab by falling limiting potential."""
    to_free = np.array([c.dG_eV - c.dE_eV for c in candidates])
    low, high = estimates.interval(settings.level)
    free = estimates.center_eV + to_free
    potential = volcano.potential(free)
    least, most = volcano.potential_range(low + to_free, high + to_free)
    rows = []
    for rank, i in enumerate(np.argsort(-potential, kind="stable"), start=1):
        candidate = candidates[i]
        rows.append(
            RankedSlab(
                rank=rank,
                screen_rank=candidate.rank,
                slab=candidate.slab,
                formula=candidate.formula,
                site=candidate.site,
                source="model",
                screened_dE_eV=candidate.dE_eV,
                dE_eV=float(estimates.center_eV[i]),
                dE_low_eV=float(low[i]),
                dE_high_eV=float(high[i]),
                dG_eV=float(free[i]),
                dG_low_eV=float(low[i] + to_free[i]),
                dG_high_eV=float(high[i] + to_free[i]),
                U_L_V=float(potential[i]),
                U_L_low_V=float(least[i]),
                U_L_high_V=float(most[i]),
                p_best=float(statistics.p_best[i]),
                p_top=float(statistics.p_top[i]),
                rank_low=int(statistics.low[i]),
                rank_high=int(statistics.high[i]),
            )
        )
    return rows


def _with_sources(
    rows: Sequence[RankedSlab],
    reference: Sequence[ReferenceValue],
    rescored: Sequence[Rescored],
) -> tuple[RankedSlab, ...]:
    source = {r.slab: r.model for r in rescored if r.counts}
    source |= {value.slab: "DFT" for value in reference if value.is_best}
    return tuple(replace(row, source=source.get(row.slab, "model")) for row in rows)
