"""What a screening will do with each entry, decided before any force is computed."""

from collections.abc import Sequence
from dataclasses import dataclass

from ase import Atoms
from ase.build import fcc111
from ase.calculators.calculator import BaseCalculator

from crack_md.workflows.inputs import Entry
from crack_md.workflows.relax import relax_fcc_constant
from crack_md.workflows.results import ModelInfo, ScreenSettings
from crack_md.workflows.sites import Site, find_sites
from crack_md.workflows.slab import Slab, prepare_slab
from crack_md.workflows.slab_checks import SlabError

PT111_NAME = "Pt(111) reference"
PT_RPBE_A = 3.99
"""RPBE lattice constant, for models that can say nothing about a bulk crystal."""


@dataclass(frozen=True, eq=False)
class SlabPlan:
    """What will be done with one entry, or why nothing can be."""

    name: str
    formula: str
    slab: Slab | None
    sites: tuple[Site, ...] = ()
    status: str = "ok"
    error: str = ""


def plan_slab(entry: Entry, *, model: ModelInfo, adsorbate: str = "O") -> SlabPlan:
    """Return the prepared slab of an entry and its sites, or the reason why not."""
    if entry.atoms is None:
        return SlabPlan(entry.name, "", None, (), entry.status, entry.error)
    formula = entry.atoms.get_chemical_formula(mode="metal")
    try:
        slab = prepare_slab(entry.atoms, adsorbate=adsorbate)
        _require_known_elements(entry.atoms, model)
        sites = find_sites(slab, adsorbate=adsorbate)
    except SlabError as error:
        return SlabPlan(entry.name, formula, None, (), error.status, str(error))
    return SlabPlan(entry.name, formula, slab, sites)


def _require_known_elements(atoms: Atoms, model: ModelInfo) -> None:
    unknown = set(atoms.symbols) - (model.elements or set(atoms.symbols))
    if unknown:
        raise SlabError(
            "unknown_element",
            f"the model was not trained on {', '.join(sorted(unknown))}; it knows "
            f"{', '.join(sorted(model.elements or ()))}",
        )


def plan_pt111(
    plans: Sequence[SlabPlan],
    calculator: BaseCalculator,
    model: ModelInfo,
    settings: ScreenSettings,
) -> tuple[SlabPlan | None, str]:
    """Return the Pt(111) p(2x2) slab to compare with, and where it comes from."""
    if all(plan.slab is None for plan in plans):
        return None, "none: there is nothing to compare"
    for plan in plans:
        if _is_pt111(plan):
            return plan, f"'{plan.name}' of the input"
    if model.elements is not None and "Pt" not in model.elements:
        return None, "none: the model does not know Pt"
    constant, source = PT_RPBE_A, "built at the RPBE lattice constant"
    if model.energy_reference == "total":
        try:
            constant = relax_fcc_constant("Pt", calculator)
        except Exception as error:
            return None, f"none: relaxing bulk Pt failed ({error})"
        source = f"built at the model's own lattice constant, {constant:.3f} Å"
    atoms = fcc111("Pt", (2, 2, 4), a=constant, vacuum=8.0)
    entry = Entry(PT111_NAME, atoms)
    return plan_slab(entry, model=model, adsorbate=settings.adsorbate), source


def _is_pt111(plan: SlabPlan) -> bool:
    """Return whether a plan is pure Pt(111) at a quarter of a monolayer."""
    if plan.slab is None or set(plan.slab.atoms.symbols) != {"Pt"}:
        return False
    kinds = [site.kind for site in plan.sites]
    right_size = len(plan.slab.surface) == 4 and plan.slab.n_layers >= 3
    return right_size and kinds == ["ontop", "bridge", "fcc", "hcp"]
