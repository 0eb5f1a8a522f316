"""What a recipe generates, and that it is a pure function of it."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import yaml
from ase import Atoms

from crack_md.data.augment.bases import generate, plan_of, teacher_lattice_constants
from crack_md.data.augment.crystals import surface_layer_of
from crack_md.data.augment.frames import count_bases, write_frames
from crack_md.data.augment.recipe import (
    Alloys,
    Dimers,
    Part,
    Rattle,
    Recipe,
    Strain,
    Variants,
    default_recipe,
    read_recipe,
)
from crack_md.data.readers import read_structures
from crack_md.errors import ConfigError, TeacherError
from crack_md.models.teachers import TeacherLabels, load_teacher

CONSTANTS = {"Ag": 4.16, "Cu": 3.63, "Pd": 3.96, "Pt": 3.98}


def plan(**changes: object) -> Alloys:
    options = {
        "elements": ("Ag", "Cu", "Pd", "Pt"),
        "counts": {"fcc111": 12, "fcc211": 3, "bulk": 6},
        "molecules": {"H2O": 2},
    }
    return Alloys(**(options | changes))


def made(alloys: Alloys, seed: int = 0):
    recipe = Recipe(generate=alloys, seed=seed)
    return list(generate(recipe, lattice_constants=CONSTANTS))


def test_the_counts_of_the_recipe_come_out():
    bases = made(plan())

    counts = Counter(base.surface for base in bases)
    assert counts == {"fcc111": 12, "fcc211": 3, "bulk": 6, "molecule": 2}
    assert len({base.group for base in bases}) == len(bases)


def test_the_same_seed_gives_the_same_structures():
    first, again, other = made(plan()), made(plan()), made(plan(), seed=1)

    assert all(a.atoms == b.atoms for a, b in zip(first, again, strict=True))
    assert any(a.atoms != b.atoms for a, b in zip(first, other, strict=True))


def test_all_pairs_take_their_turn():
    alloys = plan(counts={"bulk": 60}, orders={"random": 1.0}, molecules={})

    pairs = Counter(frozenset(base.atoms.symbols) for base in made(alloys))

    assert len(pairs) == 6
    assert max(pairs.values()) - min(pairs.values()) <= 1


def test_lattice_constants_follow_vegard_within_the_strain():
    alloys = plan(counts={"bulk": 40}, molecules={}, strain=0.02)

    for base in made(alloys):
        vegard = np.mean([CONSTANTS[symbol] for symbol in base.atoms.symbols])
        found = (4 * base.atoms.get_volume() / len(base.atoms)) ** (1 / 3)
        assert found / vegard == pytest.approx(1.0, abs=0.0201)


def test_slabs_have_their_vacuum_and_every_direction_is_periodic():
    for base in made(plan(adsorbates={"O": 1.0}, counts={"fcc111": 10}, molecules={})):
        metal = base.atoms.positions[base.atoms.numbers > 8, 2]
        assert base.atoms.cell[2, 2] - np.ptp(metal) == pytest.approx(12.0)
        assert base.atoms.pbc.all()
        assert "O" in base.adsorbate


class Parabola:
    """A teacher whose fcc minimum is known: the energy is quadratic in a."""

    name, sha256, elements = "parabola", "0", None
    has_features, energy_reference = False, "total"

    def __init__(self, minimum: float, *, sign: float = 1.0) -> None:
        self.minimum, self.sign = minimum, sign

    def predict(self, atoms: list[Atoms]) -> list[TeacherLabels]:
        constants = [(4 * one.get_volume()) ** (1 / 3) for one in atoms]
        return [
            TeacherLabels(self.sign * (a - self.minimum) ** 2, np.zeros((1, 3)))
            for a in constants
        ]


@pytest.mark.parametrize("minimum", [3.3, 3.52, 3.9, 4.2, 4.6])
def test_lattice_constants_are_the_teachers_minimum(minimum):
    found = teacher_lattice_constants(("Cu",), Parabola(minimum))

    assert found["Cu"] == pytest.approx(minimum, abs=1e-3)


def test_emt_gives_its_own_lattice_constant():
    # 3.59 Å is the fcc Cu minimum of ASE's EMT
    found = teacher_lattice_constants(("Cu",), load_teacher("emt"))

    assert found["Cu"] == pytest.approx(3.59, abs=0.01)


def test_a_teacher_without_a_minimum_is_an_error():
    with pytest.raises(TeacherError, match="no fcc minimum of Cu"):
        teacher_lattice_constants(("Cu",), Parabola(4.0, sign=-1.0))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"generat": {}}, "generat: Extra inputs"),
        ({"variants": {"relax": {"step": 3}}}, r"variants\.relax\.step: Extra inputs"),
        (
            {"generate": {"elements": ["Zz"], "counts": {}}},
            r"generate\.elements\.0: .*'Zz' is not a chemical element",
        ),
        ({"seed": "seven"}, "seed: Input should be a valid integer"),
        (
            {"variants": {"push": {"nearest": 2.0}}},
            r"variants\.push: .*nearest 2 exceeds farthest 1\.7",
        ),
        (
            {"generate": {"counts": {"bulk": 3}}},
            "generate: .*counts of slabs and bulks take elements",
        ),
        (
            {
                "generate": {
                    "elements": ["Pt", "Ni"],
                    "counts": {"hcp0001": 3},
                    "orders": {"L1_2": 1.0},
                }
            },
            "generate: .*hcp0001 has no order L1_2",
        ),
        (
            {
                "generate": {
                    "elements": ["Pt", "Ni"],
                    "counts": {"fcc211": 3},
                    "cells": {"2x2": 1.0},
                }
            },
            "none of the cells is one of fcc211; expected one of 1x1, 2x1",
        ),
        (
            {
                "generate": {
                    "elements": ["Pt"],
                    "counts": {"bulk": 3},
                    "orders": {"random": 1.0},
                }
            },
            "order random takes at least two elements",
        ),
        (
            {"generate": {"molecules": {"OH": 1}}, "parts": {"a": {}}},
            "give either 'generate' or 'parts', not both",
        ),
        (["a", "list"], "is not a recipe; expected a YAML mapping"),
    ],
)
def test_recipes_with_mistakes_are_refused_with_their_path(tmp_path, content, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError, match=message):
        read_recipe(path)


@pytest.mark.parametrize(
    ("content", "said"), [("a: [", "not valid YAML"), (None, "no such file")]
)
def test_files_that_are_no_recipes_are_refused(tmp_path, content, said):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigError, match=said):
        read_recipe(path)


def test_the_shipped_recipes_are_valid(request):
    folder = request.config.rootpath / "configs"

    recipes = {path.stem: read_recipe(path) for path in folder.glob("augment_*.yaml")}

    names = (
        "alloys",
        "more",
        "orr",
        "orr_defects",
        "orr_dimers",
        "starts",
        "tiny",
        "wide",
    )
    assert set(recipes) == {f"augment_{name}" for name in names}
    assert sum(recipes["augment_alloys"].generate.counts.values()) > 1000
    assert set(recipes["augment_orr"].metals()) <= set(
        recipes["augment_orr"].lattice_constants
    )
    for recipe in recipes.values():
        recipe = recipe.model_copy(
            update={"lattice_constants": dict.fromkeys(recipe.metals(), 4.0)}
        )
        bases = generate(recipe, lattice_constants=recipe.lattice_constants)
        first = list(islice(bases, 30))
        assert all(2 <= len(base.atoms) <= 24 for base in first)


def test_the_recipe_of_labelled_frames_still_makes_the_same_structures(request):
    recipe = read_recipe(request.config.rootpath / "configs/augment_orr.yaml")

    bases = generate(recipe, lattice_constants=recipe.lattice_constants)

    assert count_bases(recipe) == 8901
    assert [base.group for base in islice(bases, 6)] == [
        "fcc211-Co5OPt2Rh5-00000",
        "bulk-Co2PtRh-00001",
        "bulk-Ru4-00002",
        "bulk-CuPd3-00003",
        "fcc211-Ni9O-00004",
        "fcc110-Ni4O-00005",
    ]


def test_parts_are_mixed_and_keep_their_variants():
    metals = Alloys(elements=("Pt",), counts={"bulk": 40}, orders={"pure": 1.0})
    molecules = Alloys(molecules={"H2O": 40})
    recipe = Recipe(
        parts={
            "metals": Part(generate=metals, variants=Variants()),
            "water": Part(generate=molecules),
        },
        variants=Variants(strain=Strain()),
    )

    names = [entry.part for entry in plan_of(recipe)]

    assert 12 <= names[:40].count("water") <= 28
    assert count_bases(recipe) == 80
    assert recipe.all_parts()["metals"].bulk_variants == Variants()
    assert recipe.all_parts()["water"].bulk_variants == Variants(strain=Strain())


def test_diluted_elements_keep_their_share():
    alloys = plan(
        elements=("Ag", "Pt"),
        partners=("Pd",),
        largest_share={"Pd": 0.25},
        most_dilute=2,
        counts={"fcc111": 30, "bulk": 10},
        orders={"random": 1.0},
        molecules={},
    )

    for base in made(alloys):
        metal = base.atoms[base.atoms.numbers > 10]
        count = metal.symbols.count("Pd")
        assert 1 <= count <= min(2, len(metal) / 4)


def test_what_no_cell_can_hold_is_refused():
    alloys = plan(
        largest_share={"Pd": 0.01},
        elements=("Ag", "Pd"),
        counts={"bulk": 1},
        orders={"random": 1.0},
        molecules={},
    )

    with pytest.raises(ConfigError, match="no bulk structure within its lim"):
        made(alloys)


def test_skins_of_a_recipe_cover_alloys_of_three_to_one_or_random():
    alloys = plan(
        elements=("Pt",),
        partners=("Cu",),
        counts={"fcc111": 20},
        orders={"skin": 1.0},
        adsorbates={"clean": 1.0},
        molecules={},
    )

    for base in made(alloys):
        top = surface_layer_of(base.atoms, "fcc111") == 0
        assert set(base.atoms.symbols[top]) == {"Pt"}
        assert "Cu" in base.atoms.symbols
        # an atom's area lies between those of Pt and Cu, ± 3.5 % in length
        area = base.atoms.cell.areas()[2] / top.sum()
        assert 3.63**2 * 0.965**2 < area / (np.sqrt(3) / 4) < 3.98**2 * 1.035**2


def test_dimers_cover_every_pair_and_distance_and_share_a_group():
    dimers = Dimers(
        elements=("Ag", "Pt"), per_pair=4, per_adsorbate_pair=6, nearest=0.3
    )
    recipe = Recipe(parts={"contact": Part(dimers=dimers)})

    bases = list(generate(recipe, lattice_constants={}))

    groups = Counter(base.group for base in bases)
    assert groups == {
        "dimer-Ag-Ag": 4,
        "dimer-Ag-Pt": 4,
        "dimer-Pt-Pt": 4,
        "dimer-O-Ag": 6,
        "dimer-O-Pt": 6,
        "dimer-H-Ag": 6,
        "dimer-H-Pt": 6,
    }
    assert {base.adsorbate for base in bases} == {"none", "O", "H"}
    for group, count in groups.items():
        found = sorted(
            base.atoms.get_distance(0, 1) for base in bases if base.group == group
        )
        # one distance in each of equal intervals of the logarithm
        edges = 0.3 * (4.0 / 0.3) ** (np.arange(count + 1) / count)
        assert (edges[:-1] <= found).all()
        assert (found <= edges[1:]).all()


def test_a_limit_makes_the_first_frames_of_the_whole(tmp_path):
    recipe = Recipe(
        generate=plan(counts={"fcc111": 6, "bulk": 6}), lattice_constants=CONSTANTS
    )
    files = [tmp_path / name for name in ("all.db", "some.db")]

    write_frames(recipe, files[0])
    write_frames(recipe, files[1], limit=5)

    everything, some = (list(read_structures([path])) for path in files)
    assert 0 < len(some) < len(everything)
    for first, again in zip(everything, some, strict=False):
        np.testing.assert_array_equal(first.positions, again.positions)
        assert first.info["group"] == again.info["group"]


def test_without_a_teacher_the_default_needs_none():
    assert default_recipe(False).variants.relax is None
    assert default_recipe(True).variants.relax is not None
    for with_teacher in (False, True):
        assert default_recipe(with_teacher).variants.rattle == Rattle(frames=4)
        assert default_recipe(with_teacher).variants.strain == Strain(frames=2)


def test_a_variant_that_is_left_out_is_skipped():
    recipe = Recipe.model_validate({"variants": {"given": {}}})

    assert recipe.variants.rattle is None
    assert Recipe().variants.rattle == Rattle()
