"""The published Nequix potential; needs its package and weights, else skipped.

Run it in an environment of its own, made as CONTRIBUTING says:
    python -m pytest tests/models/teachers/test_nequix.py
"""

import numpy as np
import pytest
from ase.build import bulk, fcc111, molecule

from crack_md.data import read_dataset
from crack_md.data.augment.frames import write_frames
from crack_md.data.augment.recipe import Alloys, Rattle, Recipe, Relax, Variants
from crack_md.data.labelling import label_structures
from crack_md.errors import MissingDependencyError, TeacherError
from crack_md.models.teachers import load_teacher


@pytest.fixture(scope="module")
def spec(references):
    return f"nequix:{references / 'data' / 'nequix' / 'nequix-oam-1.nqx'}"


@pytest.fixture(scope="module")
def teacher(spec):
    pytest.importorskip("nequix", reason="the package nequix is not installed")
    return load_teacher(spec)


def test_without_the_package_the_error_says_how_to_get_it(spec):
    try:
        import nequix  # noqa: F401
    except ImportError:
        with pytest.raises(MissingDependencyError, match=r"crack-md\[nequix\]"):
            load_teacher(spec)
    else:
        pytest.skip("the package nequix is installed")


def test_copper_has_its_pbe_lattice_constant(teacher):
    constants = np.array([3.59, 3.63, 3.67])
    cells = [bulk("Cu", a=a) for a in constants]

    energies = [labels.energy for labels in teacher.predict(cells)]

    curvature, slope, _ = np.polyfit(constants, energies, 2)
    assert -slope / (2 * curvature) == pytest.approx(3.632, abs=0.01)


def test_forces_are_minus_the_gradient(teacher):
    slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=6.0)
    slab.rattle(0.1, seed=0)
    shifted = []
    for sign in (1, -1):
        moved = slab.copy()
        moved.positions[5, 2] += sign * 0.01
        shifted.append(moved)

    plus, minus, here = teacher.predict([*shifted, slab])

    gradient = (plus.energy - minus.energy) / 0.02
    assert here.forces[5, 2] == pytest.approx(-gradient, abs=5e-3)
    assert np.abs(here.forces.sum(axis=0)).max() < 1e-3


def test_open_boundaries_change_nothing(teacher):
    slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=7.0)
    slab.rattle(0.05, seed=0)
    closed = slab.copy()
    closed.pbc = True

    first, second = teacher.predict([slab, closed])

    assert first.energy == pytest.approx(second.energy, abs=1e-4)
    np.testing.assert_allclose(first.forces, second.forces, atol=1e-4)


def test_features_are_invariant_and_carry_the_energy(teacher):
    slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=7.0)
    slab.rattle(0.1, seed=0)
    turned = slab.copy()
    turned.rotate(33, (1, 2, 3), rotate_cell=True)
    turned.pbc = slab.pbc = True

    first, second = teacher.predict([slab, turned])

    assert first.node_features.shape == (12, 1, 128)
    np.testing.assert_allclose(
        first.node_features,
        second.node_features,
        atol=2e-4 * np.abs(first.node_features).max(),
    )
    assert np.linalg.norm(first.forces) == pytest.approx(
        np.linalg.norm(second.forces), rel=1e-3
    )


def test_batches_give_what_single_structures_give(teacher):
    structures = [bulk("Cu"), molecule("H2O"), bulk("Ag", cubic=True)]

    together = teacher.predict(structures)

    for atoms, labels in zip(structures, together, strict=True):
        (alone,) = teacher.predict([atoms])
        assert labels.energy == pytest.approx(alone.energy, abs=1e-4)
        np.testing.assert_allclose(labels.forces, alone.forces, atol=1e-4)


def test_atomic_energies_add_up(teacher):
    slab = fcc111("Pt", (2, 2, 3), a=3.97, vacuum=7.0)
    slab.symbols[11] = "Cu"

    for labels in teacher.predict([slab, molecule("H2O")]):
        assert labels.node_energy.shape == (len(labels.forces),)
        assert np.ptp(labels.node_energy) > 0.1
        assert labels.node_energy.sum() == pytest.approx(labels.energy, rel=1e-12)


def test_unknown_elements_are_refused(teacher):
    with pytest.raises(TeacherError, match="Po"):
        teacher.predict([bulk("Po", "sc", a=3.3)])


def test_files_that_are_no_weights_are_refused(tmp_path):
    pytest.importorskip("nequix", reason="the package nequix is not installed")
    path = tmp_path / "weights.nqx"
    path.write_bytes(b"{}\nnothing")

    with pytest.raises(TeacherError, match="cannot read Nequix weights"):
        load_teacher(f"nequix:{path}")


def test_the_whole_way_to_a_dataset_with_features(teacher, spec, tmp_path):
    recipe = Recipe(
        generate=Alloys(elements=("Cu", "Pt"), counts={"bulk": 2}),
        variants=Variants(rattle=Rattle(frames=1), relax=Relax(steps=2)),
    )
    write_frames(recipe, tmp_path / "frames.aselmdb", teacher=spec)

    label_structures(
        [tmp_path / "frames.aselmdb"], tmp_path / "train.aselmdb", teacher=spec
    )

    dataset = read_dataset(tmp_path / "train.aselmdb")
    assert dataset.has_features
    assert dataset.metadata["n_features"] == 128
    assert dataset.metadata["gas_references"]["H2O"] == pytest.approx(-14.02, abs=0.02)
