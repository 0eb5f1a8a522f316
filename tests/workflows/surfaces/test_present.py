"""Adsorbates that are there already: by bonds, whatever their height."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import (
    add_adsorbate,
    bcc100,
    bulk,
    fcc111,
    fcc211,
    graphene,
    molecule,
    mx2,
    surface,
)
from ase.spacegroup import crystal

from crack_md.structures import StructureEntry
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.screening.plan import ScreenSettings, plan_slab
from crack_md.workflows.surfaces.sites import find_sites
from crack_md.workflows.surfaces.slab import SlabError, prepare_slab
from crack_md.workflows.surfaces.surface_atoms import adsorbed_atoms


def platinum(layers: int = 4) -> Atoms:
    slab = fcc111("Pt", (2, 2, layers), vacuum=8.0)
    slab.pbc = True
    slab.set_tags(0)
    return slab


def with_species(slab: Atoms, what: str, height: float = 1.2) -> Atoms:
    add_adsorbate(slab, molecule(what) if len(what) > 1 else what, height, "fcc")
    slab.set_tags(0)
    return slab


def in_the_trough() -> Atoms:
    """O at the foot of a step, where the ball of its size comes to rest lowest."""
    slab = fcc211("Pt", (3, 2, 4), vacuum=8.0)
    slab.pbc = True
    slab.set_tags(0)
    lowest = min(find_sites(prepare_slab(slab)), key=lambda site: site.position[2])
    slab += Atoms("O", [lowest.position])
    return slab


def sunk_in_a_step() -> Atoms:
    """O between the atoms of a step, 0.5 Å below the upper edge."""
    slab = in_the_trough()
    slab.positions[-1, 2] -= 0.3
    return slab


def upside_down(slab: Atoms) -> Atoms:
    slab.positions[:, 2] = slab.cell[2, 2] - slab.positions[:, 2]
    return slab


def on_both_faces() -> Atoms:
    slab = with_species(platinum(), "O")
    low = slab.positions[:4].mean(axis=0)
    slab += Atoms("O", [[low[0], low[1], slab.positions[0, 2] - 1.5]])
    return slab


def nitrogen_in_graphene(*, iron: bool = False, oxygen: bool = False) -> Atoms:
    sheet = graphene(size=(5, 5, 1), vacuum=8.0)
    sheet.pbc = True
    if not iron:
        sheet.symbols[7] = "N"
        return sheet
    pair = sheet.get_distances(0, range(len(sheet)), mic=True)
    other = int(np.flatnonzero(np.abs(pair - 1.42) < 0.05)[0])
    apart = sheet.get_distance(0, other, mic=True, vector=True)
    center = sheet.positions[0] + apart / 2
    del sheet[sorted([0, other])]
    vectors = sheet.positions - center
    for n in (-1, 0, 1):
        for m in (-1, 0, 1):
            shift = n * sheet.cell[0] + m * sheet.cell[1]
            moved = sheet.positions - center + shift
            shorter = np.linalg.norm(moved, axis=1) < np.linalg.norm(vectors, axis=1)
            vectors[shorter] = moved[shorter]
    nearest = np.argsort(np.linalg.norm(vectors, axis=1))[:4]
    sheet.symbols[nearest] = "N"
    sheet += Atoms("Fe", [center])
    if oxygen:
        sheet += Atoms("O", center[None] + [0.0, 0.0, 1.65])
    return sheet


def rock_salt(layers: int) -> Atoms:
    slab = surface(bulk("NiO", "rocksalt", a=4.17, cubic=True), (1, 0, 0), layers)
    slab.center(vacuum=8.0, axis=2)
    slab.pbc = True
    return slab


def rutile() -> Atoms:
    ruo2 = crystal(
        ["Ru", "O"],
        [(0, 0, 0), (0.306, 0.306, 0)],
        spacegroup=136,
        cellpar=[4.49, 4.49, 3.11, 90, 90, 90],
    )
    slab = surface(ruo2, (1, 1, 0), 3)
    slab.center(vacuum=8.0, axis=2)
    slab.pbc = True
    return slab


def carbide() -> Atoms:
    slab = surface(bulk("TiC", "rocksalt", a=4.33, cubic=True), (1, 1, 1), 2)
    slab.center(vacuum=8.0, axis=2)
    slab.pbc = True
    return slab


def graphene_on_platinum() -> Atoms:
    slab = fcc111("Pt", (1, 1, 3), a=3.479, vacuum=8.0)  # stretched onto 2.46 Å
    sheet = graphene(vacuum=0.0)
    sheet.positions[:, 2] = slab.positions[:, 2].max() + 3.3
    slab += Atoms(sheet.symbols, sheet.positions)
    slab.pbc = True
    return slab


CARRIED = {
    "fcc": (with_species(platinum(), "O"), "O"),
    "trough": (in_the_trough(), "O"),
    "sunk in a step": (sunk_in_a_step(), "O"),
    "back": (upside_down(with_species(platinum(), "O")), "O"),
    "both faces": (on_both_faces(), "OO"),
    "single layer": (with_species(platinum(1), "O"), "O"),
    "two layers": (with_species(platinum(2), "O"), "O"),
    "OH": (with_species(platinum(), "OH", 2.0), "OH"),
    "CO": (with_species(platinum(), "CO", 1.9), "CO"),
    "CO below": (upside_down(with_species(platinum(), "CO", 1.9)), "CO"),
    "water, not bonded": (with_species(platinum(), "H2O", 3.4), "H2O"),
    "graphene on a metal": (graphene_on_platinum(), "C2"),
    "O on Fe in a sheet": (nitrogen_in_graphene(iron=True, oxygen=True), "O"),
}
"""Structure, and the formula of what it carries."""


@pytest.mark.parametrize("case", CARRIED)
def test_finds_what_is_on_a_surface(case: str) -> None:
    atoms, what = CARRIED[case]
    found = atoms.symbols[adsorbed_atoms(atoms)]
    assert sorted(found) == sorted(Atoms(what).symbols)
    with pytest.raises(SlabError, match="already carries") as caught:
        prepare_slab(atoms)
    assert caught.value.status == "has_adsorbate"


def test_nitrogen_nearly_in_the_plane_of_fe100_is_found() -> None:
    """It stands 0.27 Å above the hollow, as LEED finds it."""
    slab = bcc100("Fe", (2, 2, 4), vacuum=8.0)
    slab.pbc = True
    add_adsorbate(slab, "N", 0.27, "hollow")
    slab.set_tags(0)
    assert adsorbed_atoms(slab).tolist() == [False] * 16 + [True]


CLEAN = {
    "metal": platinum(),
    "graphene": nitrogen_in_graphene(),
    "Fe in a sheet": nitrogen_in_graphene(iron=True),
    "MoS2": mx2(size=(2, 2, 1), vacuum=8.0),
    "NiO, one cell": rock_salt(1),
    "NiO, two cells": rock_salt(2),
    "RuO2(110)": rutile(),
    "TiC(111)": carbide(),
}


@pytest.mark.parametrize("case", CLEAN)
def test_what_belongs_to_the_material_is_no_adsorbate(case: str) -> None:
    atoms = CLEAN[case].copy()
    atoms.pbc = True
    assert not adsorbed_atoms(atoms).any()
    # and the same turned over, moved sideways and renumbered
    other = upside_down(atoms.copy())
    other.positions += [1.3, 0.7, 0.0]
    assert not adsorbed_atoms(other[::-1]).any()


def test_a_marked_dopant_in_the_top_layer_is_no_adsorbate() -> None:
    slab = platinum()
    slab.symbols[13] = "Pd"
    tags = np.zeros(16, dtype=int)
    tags[12:], tags[13] = 1, 2
    slab.set_tags(tags)
    assert prepare_slab(slab).atoms.get_tags().tolist() == [0] * 12 + [1] * 4


def test_says_how_many_are_not_on_top() -> None:
    with pytest.raises(SlabError, match=r"2 atoms .* 1 of them below the topmost"):
        prepare_slab(on_both_faces())


def test_a_sheet_is_refused_for_its_elements() -> None:
    entry = StructureEntry("N-graphene", nitrogen_in_graphene())
    model = ModelInfo("student", "0", "total", elements=frozenset(["Pt", "O", "H"]))
    plan = plan_slab(entry, model=model, settings=ScreenSettings())
    assert plan.status == "unknown_element"
    assert "does not know C, N" in plan.error
