"""Every kind of bad or odd input is a status, or a plan."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.calculators.emt import EMT

from crack_md.structures import StructureEntry
from crack_md.workflows.screening.plan import SlabPlan, plan_pt111, plan_slab
from tests.workflows.screening.small_screenings import EMT_MODEL, fast

MODEL = replace(EMT_MODEL, elements=frozenset(["Pt", "Ag", "O", "H"]))


def planned(atoms: Atoms, adsorbates: str = "O", **options: int) -> SlabPlan:
    settings = fast(adsorbates, **options)
    return plan_slab(StructureEntry("x", atoms), model=MODEL, settings=settings)


def platinum(size: tuple[int, int, int] = (2, 2, 4)) -> Atoms:
    return fcc111("Pt", size, vacuum=8.0, periodic=True)


def overlapping() -> Atoms:
    slab = platinum()
    slab.positions[15] = slab.positions[14] + [0.1, 0, 0]
    return slab


def covered() -> Atoms:
    slab = platinum()
    add_adsorbate(slab, "O", 1.3, "fcc")
    return slab


def without_vacuum() -> Atoms:
    slab = platinum()
    slab.center(vacuum=1.1, axis=2)
    return slab


@pytest.mark.parametrize(
    ("atoms", "status"),
    [
        (overlapping(), "bad_structure"),
        (without_vacuum(), "no_surface"),
        (covered(), "has_adsorbate"),
        (bulk("Pt"), "no_surface"),
        (fcc111("Fe", (1, 1, 3), a=3.6, vacuum=8.0), "unknown_element"),
        (Atoms("Pt", cell=[3, 3, 3]), "no_surface"),
    ],
)
def test_bad_structures_are_rows_with_a_reason(atoms: Atoms, status: str) -> None:
    plan = planned(atoms)
    assert plan.status == status
    assert plan.slab is None
    assert plan.error
    assert "\n" not in plan.error


@pytest.mark.parametrize("pbc", [(True, True, False), (True, True, True)])
def test_mixed_periodicity_makes_no_difference(pbc: tuple[bool, bool, bool]) -> None:
    slab = platinum()
    slab.pbc = pbc
    plan = planned(slab)
    assert plan.slab is not None
    assert plan.slab.atoms.pbc.all()
    assert [start.site.label for start in plan.starts] == [
        *("ontop", "bridge", "fcc", "hcp")
    ]


def test_open_along_a_lateral_vector_is_no_slab() -> None:
    slab = platinum()
    slab.pbc = (True, False, True)
    assert planned(slab).status == "no_surface"


def test_cell_of_one_atom() -> None:
    plan = planned(platinum((1, 1, 1)))
    assert plan.slab is not None
    assert {start.site.kind for start in plan.starts} == {"ontop", "bridge", "fcc"}
    assert plan.warnings == ("adsorbates are 2.8 Å apart: a high coverage, they repel",)


def test_slab_of_500_atoms() -> None:
    """A random alloy has 600 sites; a limit draws from all of them."""
    slab = platinum((10, 10, 5))
    slab.numbers[:] = np.random.default_rng(0).choice([47, 78], size=500)
    plan = planned(slab, max_sites=30)
    assert len(plan.starts) == 30
    assert sum(len(sites) for sites in plan.sites.values()) == 600
    assert "30 of 600 sites, drawn at random" in plan.warnings
    assert len({site.environment for site in plan.sites["O"]}) > 8


def test_element_of_the_adsorbate_must_be_known() -> None:
    plan = planned(platinum(), "CO:C")
    assert plan.status == "unknown_element"
    assert "does not know C;" in plan.error


def test_starts_of_several_adsorbates_have_names_of_their_own() -> None:
    plan = planned(platinum(), "O,OH,OOH,H", random_placements=2, orientations=3)
    keys = [start.key for start in plan.starts]
    assert len(keys) == (4 + 2) + (12 + 2) + (12 + 2) + (4 + 2)
    assert len(set(keys)) == len(keys)
    assert set(plan.sites) == {"O", "H"}


def test_notes_of_the_input_come_first() -> None:
    entry = StructureEntry("x", platinum(), notes=("cut",))
    plan = plan_slab(entry, model=MODEL, settings=fast())
    assert plan.preparation[0] == "cut"
    lost = plan_slab(
        StructureEntry("x", None, "no", "not_cut"), model=MODEL, settings=fast()
    )
    assert (lost.status, lost.error) == ("not_cut", "no")


def pt111(constant: float, name: str, shear: float = 0.0) -> SlabPlan:
    atoms = fcc111("Pt", (2, 2, 4), a=constant, vacuum=8.0, periodic=True)
    cell = atoms.cell.copy()
    cell[1, 1] *= 1 + shear
    atoms.set_cell(cell, scale_atoms=True)
    entry = StructureEntry(name, atoms)
    return plan_slab(entry, model=EMT_MODEL, settings=fast())


EMT_PT_A = 3.921
"""Lattice constant of fcc Pt by EMT."""


@pytest.mark.parametrize("order", [1, -1])
def test_reference_is_chosen_by_its_lattice_constant(order: int) -> None:
    plans = [pt111(3.85, "tight"), pt111(3.935, "near"), pt111(EMT_PT_A, "own")]
    plans.append(pt111(EMT_PT_A, "oblong", shear=0.02))
    chosen, source = plan_pt111(plans[::order], EMT(), EMT_MODEL, fast())
    assert chosen is plans[2]
    assert source == "'own' of the input"


def test_strained_reference_is_named_and_not_taken() -> None:
    plans = [pt111(0.97 * EMT_PT_A, "tight")]
    chosen, source = plan_pt111(plans, EMT(), EMT_MODEL, fast())
    assert chosen is not None
    assert chosen not in plans
    assert source.startswith("built at the model's own lattice constant, 3.92")
    assert source.endswith("'tight' of the input is strained by -3.0%")
