"""What a recipe generates, and that it is a pure function of it."""

from collections import Counter

import numpy as np
import pytest
import yaml
from ase import Atoms

from crack_md.data.generate import generate, teacher_lattice_constants
from crack_md.data.recipes import Alloys, default_recipe, read_recipe
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
    return list(generate(alloys, lattice_constants=CONSTANTS, seed=seed))


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
        (["a", "list"], "is not a recipe; expected a YAML mapping"),
    ],
)
def test_recipes_with_mistakes_are_refused_with_their_path(tmp_path, content, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))

    with pytest.raises(ConfigError, match=message):
        read_recipe(path)


@pytest.mark.parametrize("content", ["a: [", None])
def test_files_that_are_no_recipes_are_refused(tmp_path, content):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_text(content)

    with pytest.raises(ConfigError, match="cannot read the recipe"):
        read_recipe(path)


def test_the_shipped_recipes_are_valid(request):
    folder = request.config.rootpath / "configs"

    recipes = {path.stem: read_recipe(path) for path in folder.glob("augment_*.yaml")}

    assert set(recipes) == {f"augment_{n}" for n in ("alloys", "more", "tiny", "wide")}
    assert sum(recipes["augment_alloys"].generate.counts.values()) > 1000


def test_without_a_teacher_the_default_needs_none():
    assert default_recipe(False).variants.relax is None
    assert default_recipe(True).variants.relax is not None
