from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from crack_md.data.torsions import (
    BondGraph,
    Torsion,
    dihedral_angles,
    find_bonds,
    find_torsions,
)
from crack_md.errors import StructureError


def torsions_of(atoms: Atoms) -> tuple[BondGraph, tuple[Torsion, ...]]:
    frames = atoms.positions[None]
    graph = find_bonds(atoms.numbers, frames)
    return graph, find_torsions(graph, frames)


def ends(graph: BondGraph, torsion: Torsion) -> str:
    symbols = {1: "H", 6: "C", 7: "N", 8: "O"}
    return "".join(symbols[graph.numbers[atom]] for atom in torsion.atoms[0])


def test_ethanol_by_hand():
    atoms = molecule("CH3CH2OH")
    graph, torsions = torsions_of(atoms)
    assert len(graph.bonds) == 8
    assert graph.is_achiral
    # methyl rotor against O, all three hydrogens; hydroxyl against the far carbon
    found = {(ends(graph, t), len(t.atoms), t.fold) for t in torsions}
    assert found == {("HCCO", 3, 3), ("CCOH", 1, 1)}
    assert len(torsions) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H2O2", {("HOOH", 1, 1)}),
        ("C2H6", {("HCCH", 9, 3)}),
        # both methyl bonds are one torsion
        ("trans-butane", {("CCCC", 1, 1), ("HCCC", 6, 3)}),
        ("CH3OCH3", {("HCOC", 6, 3)}),
        ("CH3CHO", {("HCCO", 3, 3)}),
        ("HCOOH", {("OCOH", 1, 1)}),
        ("C6H6", set()),
        ("CH4", set()),
        # the rotor at the end of a line has no torsion
        ("C2H2", set()),
        ("CH3CN", set()),
    ],
)
def test_torsions_by_hand(name: str, expected: set[tuple[str, int, int]]):
    graph, torsions = torsions_of(molecule(name))
    found = {(ends(graph, t), len(t.atoms), t.fold) for t in torsions}
    assert found == expected


def test_aspirin_by_hand(references: Path):
    path = references / "data" / "rmd17" / "rmd17_aspirin_train_01.npz"
    with np.load(path) as stored:
        numbers, frames = stored["nuclear_charges"].astype(int), stored["coords"]
    graph = find_bonds(numbers, frames)
    torsions = find_torsions(graph, frames)
    assert len(graph.bonds) == 21
    assert graph.is_achiral
    # C_ar–COOH and C–OH; C_ar–O, O–C(=O) and the methyl group of the ester
    found = sorted((ends(graph, t), len(t.atoms), t.fold) for t in torsions)
    assert found == [
        ("CCCO", 1, 1),
        ("CCOC", 1, 1),
        ("HCCO", 3, 3),
        ("OCOC", 1, 1),
        ("OCOH", 1, 1),
    ]


def test_order_of_atoms_does_not_matter():
    atoms = molecule("CH3CH2OCH3")
    order = np.random.default_rng(0).permutation(len(atoms))
    graph, torsions = torsions_of(atoms)
    mixed, again = torsions_of(atoms[order])
    assert {(ends(graph, t), len(t.atoms)) for t in torsions} == {
        (ends(mixed, t), len(t.atoms)) for t in again
    }
    assert sorted(mixed.colors) == sorted(graph.colors)
    assert [mixed.colors[list(order).index(i)] for i in range(len(atoms))] == list(
        graph.colors
    )
    same = dihedral_angles(atoms.positions[None], torsions[0].atoms)
    moved = next(t for t in again if ends(mixed, t) == ends(graph, torsions[0]))
    turned = dihedral_angles(atoms[order].positions[None], moved.atoms)
    assert np.allclose(np.sort(np.abs(same)), np.sort(np.abs(turned)))


def test_angles_are_those_of_ase_and_a_mirror_turns_their_sign():
    atoms = molecule("H2O2")
    atoms.rattle(0.2, seed=1)
    quadruple = (2, 0, 1, 3)
    angle = dihedral_angles(atoms.positions[None], (quadruple,))[0, 0]
    assert angle % 360 == pytest.approx(atoms.get_dihedral(*quadruple), abs=1e-9)
    mirrored = atoms.positions[None] * [1, 1, -1]
    assert dihedral_angles(mirrored, (quadruple,))[0, 0] == pytest.approx(-angle)


@pytest.mark.parametrize("angle", [-179.0, -60.0, 0.0, 60.0, 90.0, 180.0])
def test_angle_that_was_built(angle: float):
    turn = np.radians(angle)
    positions = [[1, 0, 0], [0, 0, 0], [0, 0, 1], [np.cos(turn), np.sin(turn), 1]]
    found = dihedral_angles(np.array([positions], dtype=float), ((0, 1, 2, 3),))
    assert found[0, 0] == pytest.approx(angle)


def test_rings_and_sides():
    ring = BondGraph((6,) * 4, ((0, 1), (0, 2), (1, 2), (2, 3)))
    assert ring.is_in_ring((0, 1))
    assert not ring.is_in_ring((2, 3))
    assert ring.side(3, without=(2, 3)) == {3}
    assert ring.side(2, without=(2, 3)) == {0, 1, 2}


def test_stereocenters():
    center = ((0, 1), (0, 2), (0, 3), (0, 4))
    assert not BondGraph((6, 1, 9, 17, 35), center).is_achiral
    assert BondGraph((6, 1, 1, 17, 35), center).is_achiral
    assert BondGraph((7, 1, 9, 17), center[:3]).is_achiral  # nitrogen turns over
    assert not BondGraph((16, 8, 9, 17), center[:3]).is_achiral


def test_two_molecules_are_refused():
    pair = molecule("H2O") + Atoms("OH", [[9, 0, 0], [9, 0, 1]])
    with pytest.raises(StructureError, match="not of one molecule"):
        find_bonds(pair.numbers, pair.positions[None])
    two = molecule("O2")
    with pytest.raises(StructureError, match="three and more"):
        find_bonds(two.numbers, two.positions[None])
