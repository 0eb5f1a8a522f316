"""Estimates of the DFT energies of all slabs for one adsorbate.

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

from crack_md.workflows.ranking.calibration import Calibration, calibrate
from crack_md.workflows.ranking.dft_values import ReferenceValue
from crack_md.workflows.ranking.errors import DFT_ERROR_EV, Estimates
from crack_md.workflows.ranking.results import RankSettings, Rescored
from crack_md.workflows.screening.reader import Adsorbed


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
