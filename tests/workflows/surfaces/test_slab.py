import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, fcc211, molecule
from ase.constraints import FixAtoms, FixCartesian, FixCom, FixScaled

from crack_md.structures import StructureEntry
from crack_md.workflows.surfaces.cut import CutSettings, cut_entries, parse_planes
from crack_md.workflows.surfaces.sites import find_sites
from crack_md.workflows.surfaces.slab import SlabError, prepare_slab


def platinum() -> Atoms:
    slab = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    slab.pbc = True
    return slab


def fixed(slab: Atoms) -> list[int]:
    return [int(i) for held in slab.constraints for i in held.get_indices()]


def test_tags_and_fixes_the_lower_half_when_absent() -> None:
    slab = prepare_slab(platinum())
    assert slab.n_layers == 4
    assert fixed(slab.atoms) == list(range(8))
    assert slab.atoms.get_tags().tolist() == [0] * 12 + [1] * 4
    assert slab.surface.tolist() == [12, 13, 14, 15]


def test_stepped_surface_exposes_its_whole_terrace() -> None:
    slab = prepare_slab(fcc211("Pt", (3, 2, 4), vacuum=8.0))
    assert slab.surface.tolist() == [0, 1, 2, 3, 4, 5]
    assert fixed(slab.atoms) == list(range(12, 24))


def test_keeps_what_the_user_fixed_and_tagged() -> None:
    atoms = platinum()
    tags = [0] * 8 + [1] * 8
    atoms.set_tags(tags)
    atoms.set_constraint(FixAtoms(range(4)))
    slab = prepare_slab(atoms).atoms
    assert fixed(slab) == [0, 1, 2, 3]
    assert slab.get_tags().tolist() == tags


@pytest.mark.parametrize(
    ("change", "notes"),
    [
        ("none", ("tags were missing: 4 surface atoms found",)),
        ("ase_tags", ("tags were not OC20's: 4 surface atoms found",)),
        ("oc20_tags", ("tags kept: 8 surface atoms",)),
        ("turned", ("turned upright", "tags were missing: 4 surface atoms found")),
        (
            "cut",
            (
                "joined across the cell boundary",
                "tags were missing: 4 surface atoms found",
            ),
        ),
        (
            "open",
            (
                "made periodic along its normal",
                "tags were missing: 4 surface atoms found",
            ),
        ),
    ],
)
def test_row_says_what_was_done(change: str, notes: tuple[str, ...]) -> None:
    atoms = platinum()
    if change != "ase_tags":
        atoms.set_tags([0] * 8 + [1] * 8 if change == "oc20_tags" else 0)
    if change == "turned":
        atoms.rotate(30.0, (1, 2, 3), rotate_cell=True)
    if change == "cut":
        atoms.positions[:, 2] += 9.0
        atoms.wrap()
    if change == "open":
        atoms.pbc = (True, True, False)
    fix = "fixed the lower 2 of 4 layers"
    assert prepare_slab(atoms).preparation == (*notes, fix)


def test_row_says_what_was_kept_and_added() -> None:
    atoms = fcc111("Pt", (2, 2, 4))
    atoms.set_constraint(FixAtoms([0, 1]))
    notes = prepare_slab(atoms).preparation
    assert "15 Å of vacuum added" in notes
    assert "constraints kept: 2 of 16 atoms fixed" in notes
    assert (
        "nothing fixed: one layer"
        in prepare_slab(fcc111("Pt", (1, 1, 1), vacuum=8.0)).preparation
    )


def test_input_is_left_alone() -> None:
    atoms = platinum()
    before = atoms.copy()
    prepare_slab(atoms)
    assert atoms == before
    assert not atoms.constraints


def test_vacuum_along_any_axis_turned_and_cut_by_the_boundary() -> None:
    atoms = platinum()
    atoms.positions[:, 2] += 9.0
    atoms.wrap()
    atoms.set_cell(atoms.cell[[2, 0, 1]])
    atoms.rotate(33.0, (1, 2, 3), rotate_cell=True)
    slab = prepare_slab(atoms)
    assert slab.n_layers == 4
    heights = np.sort(slab.atoms.positions[:, 2])
    assert heights[-1] - heights[0] == pytest.approx(3 * 3.92 / np.sqrt(3))
    assert [site.label for site in find_sites(slab)] == [
        "ontop",
        "bridge",
        "fcc",
        "hcp",
    ]
    lengths = slab.atoms.get_all_distances(mic=True)
    assert lengths == pytest.approx(atoms.get_all_distances(mic=True))


def test_gives_a_slab_without_a_third_vector_room() -> None:
    slab = prepare_slab(fcc111("Pt", (2, 2, 4))).atoms
    assert slab.pbc.all()
    thickness = np.ptp(slab.positions[:, 2])
    assert slab.cell[2] == pytest.approx([0, 0, thickness + 15.0])


def with_oxygen(*, tagged: bool) -> Atoms:
    slab = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    add_adsorbate(slab, "O", 1.2, "fcc")
    if not tagged:
        slab.set_tags(0)
    return slab


def with_tagged_adatom() -> Atoms:
    slab = fcc111("Pt", (2, 2, 4), vacuum=8.0)
    add_adsorbate(slab, "Pt", 2.2, "fcc")
    return slab


def with_nan() -> Atoms:
    slab = platinum()
    slab.positions[3] = np.nan
    return slab


def with_overlap() -> Atoms:
    slab = platinum()
    slab.positions[3] = slab.positions[2]
    return slab


def with_squeezed_pair() -> Atoms:
    """1.3 Å: farther than any overlap of hydrogen, nearer than platinum can be."""
    slab = platinum()
    slab.positions[3] = slab.positions[2] + [0, 0, 1.3]
    return slab


def without_pbc() -> Atoms:
    slab = platinum()
    slab.pbc = False
    return slab


def one_atom() -> Atoms:
    return Atoms("Pt", cell=[2.5, 2.5, 2.5], pbc=True)


def all_fixed() -> Atoms:
    slab = platinum()
    slab.set_constraint(FixAtoms(range(16)))
    return slab


def flat_cell() -> Atoms:
    slab = platinum()
    slab.cell[1] = slab.cell[0]
    return slab


@pytest.mark.parametrize(
    ("atoms", "status", "message"),
    [
        (bulk("Pt") * (3, 3, 3), "no_surface", "bulk"),
        (molecule("H2O", vacuum=8.0), "no_surface", "molecule"),
        (Atoms(), "bad_structure", "no atoms"),
        (with_nan(), "bad_structure", "NaN"),
        (with_overlap(), "bad_structure", r"atom 2.*atom 3.*0\.00 Å.*closer than"),
        (with_squeezed_pair(), "bad_structure", r"1\.30 Å apart"),
        (without_pbc(), "no_surface", "pbc F F F"),
        (one_atom(), "no_surface", "bulk; cut slabs from it with --miller"),
        (flat_cell(), "bad_structure", "cell vector"),
        (with_oxygen(tagged=True), "has_adsorbate", "O"),
        (with_oxygen(tagged=False), "has_adsorbate", "O"),
        (with_tagged_adatom(), "has_adsorbate", "Pt"),
        (all_fixed(), "surface_fixed", "top layer"),
    ],
)
def test_says_why_a_structure_cannot_be_screened(
    atoms: Atoms, status: str, message: str
) -> None:
    with pytest.raises(SlabError, match=message) as caught:
        prepare_slab(atoms)
    assert caught.value.status == status


def test_upper_side_of_the_file_stays_up() -> None:
    """A cell whose third vector points down is the same lattice: nothing is turned."""
    atoms = fcc111("Cu", (2, 2, 4), vacuum=8.0, orthogonal=True)
    atoms.pbc = True
    atoms.numbers[atoms.get_tags() == 1] = 78
    atoms.cell = atoms.cell[[1, 0, 2]] * [[1], [1], [-1]]
    assert np.linalg.det(atoms.cell) > 0
    slab = prepare_slab(atoms)
    assert set(slab.atoms.symbols[slab.surface]) == {"Pt"}
    assert slab.atoms.positions == pytest.approx(atoms.positions)
    assert np.linalg.det(slab.atoms.cell) > 0
    assert slab.atoms.cell[2, 2] > 0
    assert slab.warnings == ()
    assert "turned upright" not in slab.preparation


def upside_down(held_by: str) -> Atoms:
    """Pt on the lower side of Cu, and something that says that it is the surface."""
    atoms = platinum()
    layer = np.arange(16) // 4
    atoms.numbers[layer > 0] = 29
    atoms.set_tags(0)
    if held_by == "constraints":
        atoms.set_constraint(FixAtoms(mask=layer > 1))
    if held_by == "masks":
        atoms.set_constraint([FixScaled(int(i), [1, 1, 1]) for i in range(8, 16)])
    if held_by == "tags":
        atoms.set_tags((layer == 0).astype(int))
    return atoms


@pytest.mark.parametrize("reason", ["constraints", "masks", "tags"])
def test_constraints_and_tags_turn_a_slab_over(reason: str) -> None:
    atoms = upside_down(reason)
    slab = prepare_slab(atoms)
    assert set(slab.atoms.symbols[slab.surface]) == {"Pt"}
    assert "turned over" in slab.preparation
    (warning,) = slab.warnings
    assert warning.startswith("turned over, the side that looks along -z of the file")
    # turned, not mirrored
    assert np.linalg.det(slab.atoms.cell) > 0
    assert slab.atoms.get_all_distances(mic=True) == pytest.approx(
        atoms.get_all_distances(mic=True)
    )
    if reason != "tags":
        assert fixed(slab.atoms) == list(range(8, 16))
    plain = upside_down("nothing")
    assert set(plain.symbols[prepare_slab(plain).surface]) == {"Cu"}


def test_turn_names_the_side_that_is_up() -> None:
    atoms = platinum()
    atoms.rotate(30.0, "x", rotate_cell=True)
    (warning,) = prepare_slab(atoms).warnings
    assert "looks along [0.00 -0.50 0.87] of the file is up" in warning


@pytest.mark.parametrize("kind", [FixScaled, FixCartesian])
def test_any_constraint_that_holds_the_surface_is_seen(kind: type) -> None:
    atoms = platinum()
    atoms.set_constraint([kind(index, [True, True, True]) for index in range(16)])
    with pytest.raises(SlabError, match="top layer") as caught:
        prepare_slab(atoms)
    assert caught.value.status == "surface_fixed"


def test_masks_follow_the_cell_vectors() -> None:
    """Atoms held along the vacuum stay held along it when it becomes the third."""
    atoms = platinum()
    atoms.set_cell(atoms.cell[[2, 0, 1]])
    atoms.set_constraint([FixScaled(index, [True, False, False]) for index in (0, 1)])
    slab = prepare_slab(atoms)
    assert slab.atoms.constraints[0].mask.tolist() == [False, False, True]
    assert "constraints kept: 0 of 16 atoms fixed, 2 partly" in slab.preparation
    moved = slab.atoms.copy()
    moved.set_positions(moved.positions + 0.1)
    assert moved.positions[0, 2] == pytest.approx(slab.atoms.positions[0, 2])
    assert moved.positions[0, 0] == pytest.approx(slab.atoms.positions[0, 0] + 0.1)


def test_empty_constraints_hold_nothing_and_are_said() -> None:
    atoms = platinum()
    atoms.set_constraint(FixAtoms([]))
    slab = prepare_slab(atoms)
    assert fixed(slab.atoms) == list(range(8))
    assert slab.preparation[-1] == (
        "constraints of the file hold no atom; fixed the lower 2 of 4 layers"
    )


def test_constraints_that_cannot_hold_are_refused() -> None:
    atoms = platinum()
    atoms.set_constraint(FixCom())
    with pytest.raises(SlabError, match="FixCom cannot be kept") as caught:
        prepare_slab(atoms)
    assert caught.value.status == "unsupported_constraint"
    atoms.set_constraint(FixCartesian(0, [False, False, True]))
    prepare_slab(atoms)
    atoms.rotate(20.0, "x", rotate_cell=True)
    with pytest.raises(SlabError, match="cannot be turned with it"):
        prepare_slab(atoms)


def test_thin_vacuum_is_a_warning() -> None:
    thin = fcc111("Pt", (2, 2, 4), vacuum=4.0, periodic=True)
    assert prepare_slab(thin).warnings == (
        "8.0 Å of vacuum: under 10 Å slabs feel each other",
    )
    enough = fcc111("Pt", (2, 2, 4), vacuum=5.0001, periodic=True)
    assert prepare_slab(enough).warnings == ()


@pytest.mark.parametrize("plane", ["755", "977", "533", "211"])
@pytest.mark.parametrize("rattled", [False, True])
def test_layers_of_vicinal_surfaces(plane: str, rattled: bool) -> None:
    """Layers are a/√(h² + k² + l²) apart, half of it for 211; half of them are held."""
    (entry,) = cut_entries(
        [StructureEntry("Pt", bulk("Pt", a=3.92))],
        CutSettings(parse_planes(plane), width_A=4.0),
    )
    atoms = entry.atoms
    assert atoms is not None
    spacing = 3.92 / np.linalg.norm([int(digit) for digit in plane])
    spacing /= 2 if plane == "211" else 1
    expected = round(np.ptp(atoms.positions[:, 2]) / spacing) + 1
    if rattled:
        atoms.rattle(0.005, seed=0)
    slab = prepare_slab(atoms)
    assert slab.n_layers == expected
    assert len(fixed(slab.atoms)) == expected // 2 * (len(atoms) // expected)
