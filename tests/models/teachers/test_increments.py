"""Labels summed from increments: the formula, the offsets, and what is refused."""

import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import add_adsorbate, fcc111, molecule

from crack_md.data import read_dataset
from crack_md.data.labelling import label_structures
from crack_md.errors import ConfigError, TeacherError
from crack_md.models.teachers import TeacherLabels, load_teacher
from crack_md.models.teachers.increments import (
    IncrementTeacher,
    LabelRecipe,
    read_label_recipe,
)


class Springs:
    """Pairwise springs between all atoms, and a constant for each O and H."""

    elements = None
    energy_reference = "total"
    has_features = has_node_energy = True

    def __init__(self, name, stiffness, constants=(("O", 0.0), ("H", 0.0))):
        self.name = self.sha256 = name
        self.stiffness, self.constants = stiffness, dict(constants)
        self.asked = 0

    def predict(self, atoms):
        self.asked += len(atoms)
        return [self.answer(one) for one in atoms]

    def answer(self, atoms):
        difference = atoms.positions[:, None] - atoms.positions
        atomic = 0.25 * self.stiffness * (difference**2).sum((1, 2))
        atomic += [self.constants.get(symbol, 0.0) for symbol in atoms.symbols]
        forces = -self.stiffness * difference.sum(1)
        features = np.full((len(atoms), 1, 2), self.stiffness, dtype=np.float32)
        return TeacherLabels(atomic.sum(), forces, features, atomic)


class Flat(Springs):
    """No forces at all: every reference slab is relaxed."""

    def answer(self, atoms):
        labels = super().answer(atoms)
        return TeacherLabels(
            labels.energy, 0 * labels.forces, labels.node_features, labels.node_energy
        )


class Pushing(Springs):
    """Forces drawn by chance: no structure is at rest."""

    def answer(self, atoms):
        labels = super().answer(atoms)
        return TeacherLabels(
            labels.energy,
            np.random.default_rng(self.asked).normal(size=(len(atoms), 3)),
        )


RULES = [
    {"metals": ["Ni"], "O": {"b": 1.0}, "OH": {"b": 1.0}, "spread": ["b"]},
    {"O": {"a": 0.25, "b": 0.75}, "OH": {"a": 1.0}, "spread": ["a", "b"]},
]


def recipe(**changed):
    return LabelRecipe.model_validate(
        {"teachers": {"a": "-", "b": "-"}, "base": "a", "rules": RULES} | changed
    )


def teacher(**changed):
    members = {
        "a": Flat("a", 0.01),
        "b": Springs("b", 0.03, {"O": 5.0, "H": -1.0}.items()),
    }
    return IncrementTeacher(recipe(**changed), members, name="both")


def covered(metal="Pt", adsorbate="O"):
    slab = fcc111(metal, (1, 1, 2), a=3.9, vacuum=5.0, periodic=True)
    add_adsorbate(slab, adsorbate, 1.3, "fcc")
    slab.rattle(0.05, seed=1)
    slab.info = {}
    return slab


def increment(member, slab):
    metal = slab[[symbol not in "OH" for symbol in slab.symbols]]
    return member.answer(slab).energy - member.answer(metal).energy


def test_energy_is_the_sum_of_weighted_increments():
    both, slab = teacher(), covered()

    (labels,) = both.predict([slab])

    a, b = (both.teachers[key] for key in "ab")
    metal = a.answer(slab[:2]).energy
    expected = metal + 0.25 * increment(a, slab)
    expected += 0.75 * (increment(b, slab) + both.offsets["b"]["O"])
    assert labels.energy == pytest.approx(expected, abs=1e-12)
    assert labels.node_energy.sum() == pytest.approx(expected, abs=1e-12)


def test_each_teachers_own_value_and_their_spread_are_kept():
    both, slab = teacher(), covered()

    (labels,) = both.predict([slab])

    own = list(labels.parts.values())
    assert labels.energy == pytest.approx(
        0.25 * labels.parts["a"] + 0.75 * labels.parts["b"], abs=1e-12
    )
    assert labels.spread == pytest.approx(abs(own[0] - own[1]) / 2, abs=1e-12)


def test_forces_are_those_of_the_same_sum():
    both, slab = teacher(), covered()

    (labels,) = both.predict([slab])

    b = both.teachers["b"]
    full, empty = b.answer(slab).forces, np.zeros((3, 3))
    empty[:2] = b.answer(slab[:2]).forces
    np.testing.assert_allclose(labels.forces, 0.75 * (full - empty), atol=1e-12)


def test_offsets_make_all_teachers_agree_on_the_reference():
    both = teacher()
    a, b = (both.teachers[key] for key in "ab")
    slab = fcc111("Pt", (2, 2, 4), a=3.97, vacuum=7.0, periodic=True)
    add_adsorbate(slab, "O", 1.15, "fcc")

    shift = increment(a, slab) - increment(b, slab)

    assert both.offsets["a"] == {"O": 0.0, "H": 0.0}
    assert both.offsets["b"]["O"] == pytest.approx(shift, abs=1e-9)


def test_the_first_rule_that_holds_counts():
    both = teacher()

    (labels,) = both.predict([covered("Ni")])

    assert list(labels.parts) == ["b"]
    assert labels.energy == labels.parts["b"]
    assert labels.spread is None  # one teacher has no spread


def test_weights_follow_the_share_of_oxygen_with_hydrogen():
    both = teacher()
    slab = covered()
    slab += Atoms("OH", [[1, 1, 9.0], [1, 1, 9.9]])  # one O*, one OH*

    (labels,) = both.predict([slab])

    # half of (¼, ¾) and half of (1, 0)
    expected = 0.625 * labels.parts["a"] + 0.375 * labels.parts["b"]
    assert labels.energy == pytest.approx(expected, abs=1e-12)


def test_clean_slabs_and_molecules_are_the_base_teachers():
    both = teacher()
    structures = [covered()[:2], molecule("H2O")]

    labels = both.predict(structures)

    for one, atoms in zip(labels, structures, strict=True):
        assert one.energy == pytest.approx(both.teachers["a"].answer(atoms).energy)
        assert one.parts == {"a": one.energy}


def test_features_come_from_the_teacher_that_the_recipe_names():
    both = teacher(features="b")

    labels = both.predict([covered(), covered()[:2], molecule("H2O")])

    for one in labels:
        assert (one.node_features == np.float32(0.03)).all()


def test_labels_survive_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "crack_md.data.labelling.load_teacher", lambda spec, **_: teacher(features="b")
    )
    source = tmp_path / "frames.extxyz"
    ase.io.write(source, [covered(), covered("Ni")])

    label_structures([source], tmp_path / "out.aselmdb", teacher="recipe:x.yaml")

    first, last = read_dataset(tmp_path / "out.aselmdb").structures
    assert set(first.teacher.parts) == {"a", "b"}
    assert first.teacher.spread > 0
    assert last.teacher.spread is None
    assert first.energy == first.teacher.energy


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"base": "c"}, "no teacher is called 'c'"),
        ({"rules": RULES[:1]}, "the last rule names metals"),
        ({"rules": [RULES[1] | {"O": {"a": 0.4, "b": 0.4}}]}, "add up to 0.8"),
        ({"rules": [RULES[1] | {"metals": ["Qq"]}]}, "not a chemical element"),
        ({"bases": "a"}, "Extra inputs"),
    ],
)
def test_wrong_recipes_say_what_is_wrong(tmp_path, changed, said):
    content = {"teachers": {"a": "emt", "b": "emt"}, "base": "a", "rules": RULES}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content | changed))

    with pytest.raises(ConfigError, match=said):
        read_label_recipe(path)


def test_a_reference_that_does_not_relax_is_an_error():
    members = {"a": Pushing("a", 0.01), "b": Springs("b", 0.03)}

    with pytest.raises(TeacherError, match="does not relax"):
        IncrementTeacher(recipe(), members, name="both")


def test_a_recipe_file_names_teachers_as_commands_do(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "teachers: {a: emt}\nbase: a\n"
        "rules: [{O: {a: 1.0}, OH: {a: 1.0}, spread: [a]}]\n"
    )

    labels = load_teacher(f"recipe:{path}").predict([fcc111("Cu", (1, 1, 2), vacuum=5)])

    assert labels[0].parts == {"a": labels[0].energy}
