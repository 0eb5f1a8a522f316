"""Scores of a model's adsorption energies against DFT, a teacher and the literature.

Values come from `adsorption_values.py`, tables of sites from `crack-md screen`. Nothing
here runs a model.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from benchmarks.adsorption_values import Value
from benchmarks.dft_sets import ALLOYS, Key, Pair
from benchmarks.literature import LITERATURE
from benchmarks.scores import Scores, agreement, site_order, top_recall
from crack_md.workflows.orr import DEFAULT_SCALING, Volcano

ENERGY = "dE_O_H2O_H2_eV"
PLATINUM = "Pt(111)"
TOP, SHORTLIST = 10, 20
PT111_FREE_ENERGY_EV = 1.66
"""ΔG of O* on Pt(111): 1.62 (Falsig) + 0.04. Alloys are placed on the volcano relative
to it, by DFT and by the model alike."""
Table = dict[tuple[str, str], float]
Values = Mapping[Key, Value]


def score_gpaw(pairs: Sequence[Pair], values: Values) -> Scores:
    """Return the agreement with DFT on alloys, both relative to Pt(111)."""
    known = _known(pairs, values)
    if len(known) < 3 or known[0][0].name != PLATINUM:
        return _has_free_energy(pairs, values)
    platinum, alloys = known[0][0], known[1:]
    dft = np.array([pair.dft - platinum.dft for pair, _ in alloys])
    model = np.array([energy - known[0][1] for _, energy in alloys])
    family = np.array([pair.name.split("-")[0] for pair, _ in alloys])
    return {
        "relative_to_Pt111": agreement(dft, model),
        **{
            name: agreement(dft[family == name], model[family == name])
            for name in ALLOYS
            if (family == name).sum() > 2
        },
        **recalls(dft, model),
        **_has_free_energy(pairs, values),
        "values": [
            {"name": pair.name, "site": pair.site, "dft": pair.dft, "model": energy}
            for pair, energy in known
        ],
    }


def recalls(
    reference_eV: Float[ndarray, " slab"], model_eV: Float[ndarray, " slab"]
) -> Scores:
    """Return how many of the reference's best slabs are among the model's best.

    Best is the highest limiting potential; energies are relative to Pt(111).
    """
    n = len(reference_eV)
    potentials = [volcano_potentials(values) for values in (reference_eV, model_eV)]
    return {
        "top_recall": top_recall(*potentials, TOP),
        "top_among_shortlist": top_recall(*potentials, TOP, among=SHORTLIST),
        "top_recall_by_chance": min(1.0, TOP / n),
        "top_among_shortlist_by_chance": min(1.0, SHORTLIST / n),
    }


def volcano_potentials(
    relative_eV: Float[ndarray, " slab"],
) -> Float[ndarray, " slab"]:
    """Return U_L in V of slabs from ΔE of O* relative to Pt(111)."""
    volcano = Volcano.named("O", DEFAULT_SCALING)
    return volcano.potential(PT111_FREE_ENERGY_EV + relative_eV)


def score_xu_kitchin(pairs: Sequence[Pair], values: Values) -> Scores:
    """Return the agreement with DFT on pure metals: energies and order of sites."""
    known = _known(pairs, values)
    dft = np.array([pair.dft for pair, _ in known])
    model = np.array([energy for _, energy in known])
    fcc = np.array([pair.site == "fcc" for pair, _ in known], dtype=bool)
    groups = {"all_sites": fcc | True, "fcc_of_metals": fcc}
    return {
        **{name: agreement(dft[g], model[g]) for name, g in groups.items() if g.any()},
        **site_order([pair.name for pair, _ in known], dft, model),
        **_has_free_energy(pairs, values),
        "values": [
            {"name": pair.name, "site": pair.site, "dft": pair.dft, "model": energy}
            for pair, energy in known
        ],
    }


def score_same_pairs(pairs: Sequence[Pair], teacher: Values, student: Values) -> Scores:
    """Return the agreement of two models on the pairs that both have."""
    both = [
        (pair.name, energy, _energy(student, pair.key))
        for pair, energy in _known(pairs, teacher)
        if _energy(student, pair.key) is not None
    ]
    if len(both) < 3:
        return {}
    of_teacher, of_student = np.array([each[1:] for each in both], dtype=float).T
    scores = agreement(of_teacher, of_student)
    if both[0][0] == PLATINUM:
        relative = [values[1:] - values[0] for values in (of_teacher, of_student)]
        scores |= recalls(*relative)
    return scores


def score_against_teacher(teacher: Path, student: Path) -> Scores:
    """Return the agreement of two tables: per final site, and per slab's best."""
    known, predicted = site_energies(teacher), site_energies(student)
    both = sorted(known.keys() & predicted.keys())
    slabs = sorted({slab for slab, _ in both})
    best = [best_energies(table, slabs) for table in (known, predicted)]
    at_sites = [np.array([table[key] for key in both]) for table in (known, predicted)]
    return {
        "sites": agreement(*at_sites),
        "best_site_per_slab": agreement(
            *(np.array([energies[slab] for slab in slabs]) for energies in best)
        ),
        **site_order([slab for slab, _ in both], *at_sites),
        "per_slab_eV": {
            slab: {"teacher": best[0][slab], "model": best[1][slab]} for slab in slabs
        },
        "sites_missing": len(known.keys() - predicted.keys()),
    }


def score_literature(table: Path) -> Scores:
    """Return the agreement of a table's pure (111) metals with published energies."""
    energies = site_energies(table)
    slabs = sorted({slab for slab, _ in energies})
    best = best_energies(energies, slabs)
    scores: Scores = {}
    for name, published in LITERATURE.items():
        metals = [m for m in published.energies_eV if f"{m}(111)" in best]
        if len(metals) < 3:
            continue
        known = np.array([published.energies_eV[metal] for metal in metals])
        model = np.array([best[f"{metal}(111)"] for metal in metals])
        scores[name] = agreement(known, model)
        if not published.absolute:
            scores[name].pop("MAE_eV")  # another zero of energy
    if "Pt(111)" in best:
        scores["Pt111_eV"] = best["Pt(111)"]
    return scores


def site_energies(table: Path) -> Table:
    """Return the lowest energy in eV of every site that an adsorbate ended on.

    Bridges are saddle points: two models may let the oxygen slide down either side.
    """
    energies: Table = {}
    with table.open() as file:
        for row in csv.DictReader(file):
            if row["status"] == "converged":
                key = row["slab"], row["final_site"]
                energies[key] = min(float(row[ENERGY]), energies.get(key, np.inf))
    return energies


def best_energies(table: Table, slabs: Iterable[str]) -> dict[str, float]:
    """Return the lowest energy in eV on each of these slabs."""
    return {
        slab: min(energy for (name, _), energy in table.items() if name == slab)
        for slab in slabs
    }


def _energy(values: Values, key: Key) -> float | None:
    return values[key].dE_eV if key in values else None


def _known(pairs: Sequence[Pair], values: Values) -> list[tuple[Pair, float]]:
    """Return the pairs that the model has an energy in eV for, in their order."""
    energies = [(pair, _energy(values, pair.key)) for pair in pairs]
    return [(pair, energy) for pair, energy in energies if energy is not None]


def _has_free_energy(pairs: Sequence[Pair], values: Values) -> Scores:
    """Return how many pairs there are, what failed, and how fast it went."""
    chosen = [values[pair.key] for pair in pairs if pair.key in values]
    timed = [v for v in chosen if v.relaxations and v.cpu_s and v.wall_s]
    scores: Scores = {
        "pairs": len(pairs),
        "not_covered": len(pairs) - len(chosen),
        "not_converged": sum(value.status == "not_converged" for value in chosen),
        "failed": sum(value.status == "failed" for value in chosen),
    }
    if timed:
        relaxations = sum(value.relaxations or 0 for value in timed)
        steps = sum(value.optimizer_steps or 0 for value in timed)
        scores["steps_per_relaxation"] = steps / relaxations
        scores["relaxations_per_cpu_s"] = relaxations / sum(v.cpu_s or 0 for v in timed)
        scores["relaxations_per_s"] = relaxations / sum(v.wall_s or 0 for v in timed)
    return scores
