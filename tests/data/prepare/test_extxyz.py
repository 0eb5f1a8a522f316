"""Frames of OC20's text: values, fixed atoms, and the line of every mistake."""

import numpy as np
import pytest

from crack_md.data.dataset import free_atoms
from crack_md.data.prepare.oc20_files import parse_frame, raw_frames
from crack_md.errors import DataError
from tests.oc20_files import as_text, frame

PUBLISHED = """2
Lattice="3.0 0.0 0.0 0.5 4.0 0.0 0.0 0.0 20.0" Properties=species:S:1:pos:R:3:\
move_mask:L:1:tags:I:1:forces:R:3 energy=-181.54722937 free_energy=-181.54878652 \
pbc="T T T"
Pt       0.00000000       0.00000000      10.00000000 F       0       0.50000000 \
0.00000000      -0.25000000
O        1.00000000       0.50000000      12.00000000 T       2      -0.01000000 \
0.00000000       0.02000000
"""


def parsed(text: str) -> list:
    return [
        parse_frame(raw) for raw in raw_frames(text.splitlines(keepends=True), "f.xyz")
    ]


def test_a_frame_as_published() -> None:
    (atoms,) = parsed(PUBLISHED)

    assert atoms.get_potential_energy() == -181.54722937
    assert atoms.cell.array.tolist() == [[3, 0, 0], [0.5, 4, 0], [0, 0, 20]]
    assert atoms.get_chemical_symbols() == ["Pt", "O"]
    assert atoms.get_tags().tolist() == [0, 2]
    assert free_atoms(atoms).tolist() == [False, True]
    forces = [[0.5, 0, -0.25], [-0.01, 0, 0.02]]
    assert atoms.get_forces(apply_constraint=False).tolist() == forces
    assert atoms.pbc.all()


def test_what_ase_writes_is_read_back() -> None:
    frames = [frame(number) for number in range(3)]

    for atoms, expected in zip(parsed(as_text(frames)), frames, strict=True):
        np.testing.assert_allclose(atoms.positions, expected.positions, atol=1e-8)
        np.testing.assert_allclose(
            atoms.get_forces(apply_constraint=False),
            expected.get_forces(apply_constraint=False),
            atol=1e-8,
        )
        assert atoms.get_potential_energy() == expected.get_potential_energy()
        assert (atoms.numbers == expected.numbers).all()
        assert (free_atoms(atoms) == free_atoms(expected)).all()


def test_without_a_mask_atoms_below_the_surface_are_fixed() -> None:
    text = PUBLISHED.replace("move_mask:L:1:", "")
    text = text.replace(" F       0", " 0").replace(" T       2", " 2")
    (atoms,) = parsed(text)
    assert free_atoms(atoms).tolist() == [False, True]


def test_empty_lines_between_frames_are_no_mistake() -> None:
    assert len(parsed(f"{PUBLISHED}\n{PUBLISHED}\n\n")) == 2


@pytest.mark.parametrize(
    ("wrong", "right", "line", "message"),
    [
        ("two", "2", 1, "found 'two', expected the number of atoms"),
        ("3", "2", 4, "the file ends inside a frame of 3 atoms, which begins in line"),
        ("Xx ", "Pt ", 3, "cannot read 'Xx' as species"),
        ("1.0o0", "1.000", 4, "cannot read '1.0o000000 0.50000000 12.00000000' as pos"),
        (" nan\n", "      -0.25000000\n", 3, "a force that is not finite"),
        ("F  0 ", "F ", 3, "found 10 columns, expected 9, as the header in line 6"),
        (" energi=", " energy=", 2, "found nothing for energy, expected 1 finite"),
        ("energy=lo", "energy=-181", 2, "found 'lo.54722937' for energy"),
        ("Cell", "Lattice", 2, "found nothing for Lattice, expected 9 finite"),
        (":kraft:R:3", ":forces:R:3", 2, "Properties has no forces"),
    ],
)
def test_mistakes_are_named_with_their_line(
    wrong: str, right: str, line: int, message: str
) -> None:
    text = PUBLISHED + PUBLISHED.replace(right, wrong, 1)

    with pytest.raises(DataError) as error:
        parsed(text)

    assert str(error.value).startswith(f"f.xyz, line {line + 4}: ")
    assert message in str(error.value)
