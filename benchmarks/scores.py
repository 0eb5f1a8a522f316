"""How well one set of energies follows another, as numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.stats import pearsonr, spearmanr

Scores = dict[str, Any]


def agreement(
    reference: Float[ndarray, " value"], model: Float[ndarray, " value"]
) -> Scores:
    """Return how well one set of energies in eV follows another.

    The shift is the median error: no other constant leaves a smaller mean absolute
    error. Correlations are None where one side is constant.
    """
    error = model - reference
    varies = len(error) > 1 and np.ptp(reference) > 0 and np.ptp(model) > 0
    return {
        "n": len(error),
        "MAE_eV": float(np.abs(error).mean()),
        "MAE_after_shift_eV": float(np.abs(error - np.median(error)).mean()),
        "shift_eV": float(np.median(error)),
        "max_error_eV": float(np.abs(error).max()),
        "spearman": float(spearmanr(reference, model)[0]) if varies else None,
        "pearson": float(pearsonr(reference, model)[0]) if varies else None,
    }


def top_recall(
    reference: Float[ndarray, " slab"],
    model: Float[ndarray, " slab"],
    n: int,
    *,
    among: int | None = None,
) -> float:
    """Return the share of the reference's ``n`` highest among the model's highest.

    Args:
        reference: what is true.
        model: what is predicted.
        n: how many are to be found.
        among: how many of the model's highest are looked at; ``n`` by default.
    """
    wanted, looked_at = (
        set(np.argsort(-values, kind="stable")[:count])
        for values, count in ((reference, n), (model, n if among is None else among))
    )
    return len(wanted & looked_at) / len(wanted)


def site_order(
    slabs: Sequence[str],
    reference: Float[ndarray, " site"],
    model: Float[ndarray, " site"],
) -> Scores:
    """Return whether the sites of each slab are in the same order of energy.

    ``site_order_accuracy`` is the share of all pairs of sites of one slab that are
    ordered alike, ``best_site_right`` the share of slabs with the same lowest site.
    Slabs with one site do not count; without any other both shares are None.
    """
    alike, pairs, best, several = 0, 0, 0, 0
    for slab in dict.fromkeys(slabs):
        of_slab = np.flatnonzero([name == slab for name in slabs])
        if len(of_slab) < 2:
            continue
        known, predicted = reference[of_slab], model[of_slab]
        first, second = np.triu_indices(len(of_slab), k=1)
        same = (known[first] < known[second]) == (predicted[first] < predicted[second])
        alike, pairs = alike + int(same.sum()), pairs + len(same)
        best += int(known.argmin() == predicted.argmin())
        several += 1
    return {
        "site_pairs": pairs,
        "site_order_accuracy": alike / pairs if pairs else None,
        "best_site_right": best / several if several else None,
    }
