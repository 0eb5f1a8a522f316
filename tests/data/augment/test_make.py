"""Frames of all kinds: relaxations and runs with EMT as the teacher."""

import numpy as np
import pytest
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms

from crack_md.data.augment.frames import MAKERS, make_frames, relaxed, thermal
from crack_md.data.augment.recipe import Rattle, Relax, Thermal, Variants
from crack_md.errors import TeacherError
from crack_md.models.teachers import load_teacher


@pytest.fixture(scope="module")
def emt():
    return load_teacher("emt")


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def slab():
    atoms = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    atoms.pbc = True
    return atoms


def test_a_relaxation_ends_near_its_minimum_and_keeps_the_lower_layers(emt):
    atoms = slab()
    section = Relax(steps=60, fmax=0.03, rattle=0.1, rattled_ends=2)

    frames = list(relaxed(atoms, section, teacher=emt, random=generator()))

    path = [frame for frame in frames if "kind" not in frame.info]
    ends = [frame for frame in frames if frame.info.get("kind") == "rattled"]
    energies = [frame.info["teacher_energy"] for frame in path]
    upper = atoms.positions[:, 2] > atoms.positions[:, 2].min() + 3.0
    assert len(ends) == 2
    assert energies[-1] == min(energies) < energies[0] - 0.1
    assert np.abs(path[-1].info["teacher_forces"][upper]).max() < 0.03
    lowest = atoms.positions[:, 2] < atoms.positions[:, 2].min() + 1.0
    np.testing.assert_allclose(
        path[0].positions[lowest], path[-1].positions[lowest], atol=1e-12
    )
    assert not path[0].constraints


def test_frames_carry_the_labels_of_exactly_their_positions(emt):
    for make, section in (
        (relaxed, Relax(steps=4)),
        (thermal, Thermal(steps=6, every=2)),
    ):
        frames = [
            frame
            for frame in make(slab(), section, teacher=emt, random=generator())
            if "teacher_energy" in frame.info
        ]
        assert len(frames) >= 3
        for frame, fresh in zip(frames, emt.predict(frames), strict=True):
            assert frame.info["teacher_energy"] == pytest.approx(
                fresh.energy, abs=1e-10
            )
            np.testing.assert_allclose(
                frame.info["teacher_forces"], fresh.forces, atol=1e-10
            )


def test_users_constraints_hold_in_every_variant(emt):
    atoms = slab()
    atoms.set_constraint(FixAtoms([0, 1, 2, 3]))
    variants = Variants(relax=Relax(steps=5), thermal=Thermal(steps=4, every=2))

    frames = make_frames(atoms, variants, teacher=emt, random=generator())

    assert {frame.info["kind"] for frame in frames} == {"rattled", "relaxed", "thermal"}
    for frame in frames:
        np.testing.assert_allclose(frame.positions[:4], atoms.positions[:4], atol=1e-12)
        assert frame.constraints[0].index.tolist() == [0, 1, 2, 3]


def test_a_run_has_about_the_temperature_asked_for(emt):
    # equipartition: a harmonic crystal holds 3/2 kT of potential energy per atom
    atoms = bulk("Cu", cubic=True, a=3.59) * 3
    section = Thermal(steps=400, every=20, coldest_K=300, hottest_K=300.001)
    ground = emt.predict([atoms])[0].energy

    energies = [
        frame.info["teacher_energy"] - ground
        for frame in thermal(atoms, section, teacher=emt, random=generator())
    ]

    per_atom = np.mean(energies[5:]) / len(atoms)
    assert per_atom == pytest.approx(1.5 * 8.617e-5 * 300, rel=0.25)


def test_the_same_generator_gives_the_same_frames(emt):
    variants = Variants(relax=Relax(steps=3), thermal=Thermal(steps=4, every=2))

    first, again = (
        make_frames(slab(), variants, teacher=emt, random=generator(5))
        for _ in range(2)
    )

    assert all(a == b for a, b in zip(first, again, strict=True))


def test_shares_leave_variants_out():
    variants = Variants(rattle=Rattle(share=0.3, frames=1))

    made = [
        len(make_frames(slab(), variants, teacher=None, random=generator(seed)))
        for seed in range(200)
    ]

    assert sum(made) == pytest.approx(60, abs=20)


def test_relaxing_without_a_teacher_says_what_to_do():
    with pytest.raises(TeacherError, match="pass --teacher"):
        make_frames(slab(), Variants(relax=Relax()), teacher=None, random=generator())


def test_every_variant_names_the_kind_of_its_frames():
    atoms = slab()
    add_adsorbate(atoms, "O", 1.2, "fcc")
    atoms.append("H")
    atoms.positions[-1] = atoms.positions[-2] + [0, 0, 0.98]
    variants = Variants.model_validate({key: {"frames": 1} for key in MAKERS})

    frames = make_frames(atoms, variants, teacher=None, random=generator())

    assert [frame.info["kind"] for frame in frames] == [k for k, _ in MAKERS.values()]
    assert set(MAKERS) | {"relax", "thermal"} == set(Variants.model_fields)
