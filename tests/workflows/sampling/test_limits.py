from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from crack_md.data.torsions import dihedral_angles, find_bonds, turn_bond
from crack_md.workflows.sampling.analysis import GeometryLimits, spurious_frames
from crack_md.workflows.sampling.molecule import find_molecule
from crack_md.workflows.sampling.reference import ReferenceFrames, read_reference
from crack_md.workflows.sampling.run_chains import starting_positions


@pytest.fixture
def ethanol() -> Atoms:
    return molecule("CH3CH2OH")


def rattled(atoms: Atoms, count: int = 1000) -> np.ndarray:
    rng = np.random.default_rng(0)
    return atoms.positions + 0.02 * rng.normal(size=(count, len(atoms), 3))


def limits_of(atoms: Atoms) -> GeometryLimits:
    frames = rattled(atoms)
    return GeometryLimits.of(find_bonds(atoms.numbers, frames), frames)


def stretched(atoms: Atoms, by: float) -> np.ndarray:
    """Return ethanol with the hydroxyl hydrogen pulled out along its bond."""
    long = atoms.copy()
    oxygen = int(np.flatnonzero(atoms.numbers == 8)[0])
    hydrogen = min(
        np.flatnonzero(atoms.numbers == 1), key=lambda h: atoms.get_distance(oxygen, h)
    )
    long.set_distance(
        oxygen, hydrogen, atoms.get_distance(oxygen, hydrogen) + by, fix=0
    )
    return long.positions


def test_limits_are_quantiles_and_a_tenth(ethanol: Atoms):
    found = limits_of(ethanol)
    # σ of a length is √2 · 0.02 Å; 0.1 % is 3.1 σ out
    assert np.allclose(found.longest - found.means, 3.1 * 0.028 + 0.1, atol=0.02)
    assert np.allclose(found.means - found.shortest, 3.1 * 0.028 + 0.1, atol=0.02)
    assert len(found.bonds) == 8
    assert len(found.apart) == 36 - 8


def test_a_bond_breaks_twice_as_far_as_the_reference_reaches() -> None:
    """Of metals some bonds are 0.5 Å off now and then; those of the others are not."""
    frames = np.zeros((1001, 3, 3))
    frames[:, :, 0] = [0.0, 2.3, 4.6]
    frames[:500, 0, 0] = 0.05
    frames[500:1000, 0, 0] = -0.05
    frames[1000, 0, 0] = -0.4
    copper = find_bonds(np.array([29, 29, 29]), frames)
    limits = GeometryLimits.of(copper, frames)
    apart = frames[0].copy()
    for by, broken in ((0.55, False), (0.75, False), (0.85, True)):
        apart[0, 0] = -by
        assert (limits.blow_up(apart) is not None) is broken, by
    stiff = GeometryLimits.of(copper, frames[:1000])
    apart[0, 0] = -0.55
    assert stiff.blow_up(apart) == "bond 0–1 is +0.55 Å off its mean"


@pytest.mark.parametrize(
    ("by", "spurious", "blown"),
    [(0.0, False, False), (0.1, False, False), (0.3, True, False), (0.7, True, True)],
)
def test_a_long_bond(ethanol: Atoms, by: float, spurious: bool, blown: bool):
    found, frame = limits_of(ethanol), stretched(ethanol, by)
    assert found.unusual(frame[None])["bond_length"].tolist() == [spurious]
    assert (found.blow_up(frame) is not None) is blown
    if blown:
        assert "is +0.7" in str(found.blow_up(frame))


def test_atoms_that_come_too_near_are_a_new_bond(ethanol: Atoms):
    found = limits_of(ethanol)
    hydrogens = np.flatnonzero(ethanol.numbers == 1)
    frame = ethanol.positions.copy()
    frame[hydrogens[0]] = frame[hydrogens[1]] + [0, 0, 0.7]
    assert found.unusual(frame[None])["new_bond"][0]
    assert not found.unusual(ethanol.positions[None])["new_bond"][0]


def test_energies_outside_the_window_and_numbers_that_are_none(ethanol: Atoms):
    frames = np.repeat(ethanol.positions[None], 5, axis=0)
    frames[4, 0] = np.nan
    found = spurious_frames(
        frames,
        np.array([0.0, -1.8, -2.2, 3.2, 0.0]),
        limits=limits_of(ethanol),
        reference_energies=np.array([-1.0, 1.0] * 50),
    )
    assert found["energy_too_low"].tolist() == [False, False, True, False, False]
    assert found["energy_too_high"].tolist() == [False, False, False, True, False]
    assert found["any"].tolist() == [False, False, True, True, True]
    without = spurious_frames(
        frames, np.full(5, 99.0), limits=limits_of(ethanol), reference_energies=None
    )
    assert without["any"].tolist() == [False] * 4 + [True]


def test_turned_bonds_turn_their_torsion_and_nothing_else(ethanol: Atoms):
    graph = find_bonds(ethanol.numbers, ethanol.positions[None])
    found = find_molecule(ethanol.numbers, ethanol.positions[None])
    for torsion in found.torsions:
        quadruple = torsion.atoms[0]
        turned = turn_bond(ethanol.positions, graph, quadruple[1:3], 40.0)
        before, after = (
            dihedral_angles(frame[None], (quadruple,))[0, 0]
            for frame in (ethanol.positions, turned)
        )
        assert (after - before - 40.0 + 180) % 360 == pytest.approx(180)
        bonds = np.array(graph.bonds)
        lengths = [
            np.linalg.norm(frame[bonds[:, 0]] - frame[bonds[:, 1]], axis=1)
            for frame in (ethanol.positions, turned)
        ]
        assert np.allclose(*lengths)
        others = tuple(o.atoms[0] for o in found.torsions if o is not torsion)
        kept = [dihedral_angles(f[None], others) for f in (ethanol.positions, turned)]
        assert np.allclose(np.cos(np.radians(kept[0] - kept[1])), 1.0)


def test_half_of_the_chains_start_where_the_reference_never_was(ethanol: Atoms):
    reference = ReferenceFrames("here", ethanol.numbers, rattled(ethanol))
    found = find_molecule(reference.numbers, reference.positions)
    starts = starting_positions(reference, found, n_chains=32, seed=0)
    again = starting_positions(reference, found, n_chains=32, seed=0)
    other = starting_positions(reference, found, n_chains=32, seed=1)
    assert np.array_equal(starts, again)
    assert not np.array_equal(starts, other)
    assert all(
        (start == reference.positions).all((1, 2)).any() for start in starts[:16]
    )
    hydroxyl = next(torsion for torsion in found.torsions if torsion.fold == 1)
    typical, spread = (
        np.abs(dihedral_angles(some, hydroxyl.atoms))
        for some in (starts[:16], starts[16:])
    )
    assert typical.min() > 150  # trans
    assert spread.min() < 60
    limits = GeometryLimits.of(found.graph, reference.positions)
    assert not limits.unusual(starts)["bond_length"].any()
    assert all(limits.blow_up(start) is None for start in starts)


def test_without_torsions_chains_start_high():
    water = molecule("H2O")
    energies = np.arange(1000.0)
    reference = ReferenceFrames("here", water.numbers, rattled(water), energies)
    found = find_molecule(reference.numbers, reference.positions)
    starts = starting_positions(reference, found, n_chains=8, seed=0)
    highest = reference.positions[950:]
    assert all((start == highest).all((1, 2)).any() for start in starts[4:])


@pytest.mark.parametrize("name", ["ethanol", "aspirin"])
def test_half_of_md17_is_not_spurious_to_the_other(references: Path, name: str):
    reference = read_reference(references / "data" / "rmd17", molecule=name)
    assert reference.energies is not None
    half = len(reference) // 2
    graph = find_bonds(reference.numbers, reference.positions)
    found = spurious_frames(
        reference.positions[half:],
        reference.energies[half:],
        limits=GeometryLimits.of(graph, reference.positions[:half]),
        reference_energies=reference.energies[:half],
    )
    assert found["any"].mean() <= 1e-3, {k: v.sum() for k, v in found.items()}
