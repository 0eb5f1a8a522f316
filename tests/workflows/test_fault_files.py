"""Files that went wrong without a word, each with the answer that is right.

They are small structures of our own in `tests/data/faults`.
"""

from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from crack_md.structures import StructureEntry, read_entries
from crack_md.workflows.screening.plan import plan_pt111, plan_slab
from crack_md.workflows.screening.reader import read_screening
from crack_md.workflows.surfaces.cut import CutSettings, cut_entries, parse_planes
from crack_md.workflows.surfaces.sites import find_sites
from crack_md.workflows.surfaces.slab import SlabError, prepare_slab
from tests.workflows.screening.small_screenings import EMT_MODEL, fast, run

FAULTS = Path(__file__).parents[1] / "data" / "faults"


def cut(name: str, plane: str) -> Atoms:
    settings = CutSettings(parse_planes(plane))
    (entry,) = cut_entries(read_entries(FAULTS / name), settings)
    assert entry.atoms is not None, entry.error
    return entry.atoms


def area(atoms: Atoms) -> float:
    return float(np.linalg.norm(np.cross(*atoms.cell.array[:2])))


def test_l10_111_is_the_dense_plane_of_the_file() -> None:
    """Spacing 2.19 Å and 0.160 atoms/Å² follow from a, c and four atoms in a cell."""
    bulk = ase.io.read(FAULTS / "PtCu_L10_4atoms.vasp")
    a, b, c = bulk.cell.lengths()
    spacing = 1 / np.sqrt(1 / a**2 + 1 / b**2 + 1 / c**2)
    slab = cut("PtCu_L10_4atoms.vasp", "111")
    heights = np.unique(slab.positions[:, 2].round(3))
    assert np.diff(heights) == pytest.approx(spacing, abs=2e-3)
    assert spacing == pytest.approx(2.19, abs=0.005)
    in_plane = len(slab) / len(heights) / area(slab)
    assert in_plane == pytest.approx(4 * spacing / bulk.cell.volume, abs=1e-4)
    assert in_plane == pytest.approx(0.160, abs=1e-3)


def test_tetragonal_001_and_100_differ() -> None:
    """Nets of a/√2 × a/√2 and of a/√2-centred a × c: areas per atom a²/2 and ac/2."""
    a, _, c = ase.io.read(FAULTS / "Pt_tetragonal_1pct.vasp").cell.lengths()
    assert c / a == pytest.approx(0.98, abs=0.011)
    for plane, expected in (("001", a * a / 2), ("100", a * c / 2)):
        slab = cut("Pt_tetragonal_1pct.vasp", plane)
        layers = len(np.unique(slab.positions[:, 2].round(3)))
        assert area(slab) / (len(slab) / layers) == pytest.approx(expected, abs=1e-3)


def test_a_skin_stays_on_top_where_c_points_down() -> None:
    slab = prepare_slab(ase.io.read(FAULTS / "skin_c_minus_z.extxyz"))
    top = slab.atoms.positions[:, 2].argmax()
    assert slab.atoms.symbols[int(top)] == "Pt"
    assert {slab.atoms.symbols[int(i)] for i in slab.surface} == {"Pt"}


def test_oxygen_on_both_faces_is_counted_on_both() -> None:
    with pytest.raises(SlabError, match=r"already carries 2 atoms.*1 of them below"):
        prepare_slab(ase.io.read(FAULTS / "O_on_both_faces.traj"))


def sites_per_atom(atoms: Atoms) -> Counter[tuple[str, float]]:
    slab = prepare_slab(atoms)
    found = find_sites(slab)
    return Counter((s.label, s.multiplicity / len(slab.surface)) for s in found)


def test_a_row_surface_has_five_classes_in_any_order_and_cell() -> None:
    """(110) of fcc: ontop, long and short bridge, two sides of a row, the trough."""
    first = ase.io.read(FAULTS / "Pt110.extxyz")
    expected = sites_per_atom(first)
    assert len(expected) == 5
    for name in ("Pt110_permuted.extxyz", "Pt110_2x1.extxyz"):
        assert sites_per_atom(ase.io.read(FAULTS / name)) == expected
    assert sites_per_atom(first[::-1]) == expected


def test_half_of_a_vicinal_slab_is_fixed() -> None:
    slab = prepare_slab(ase.io.read(FAULTS / "Pt755.vasp"))
    (held,) = slab.atoms.constraints
    assert len(slab.atoms) == 38
    assert 0.4 < len(held.index) / 38 < 0.6
    assert slab.atoms.positions[held.index, 2].max() < np.median(
        slab.atoms.positions[:, 2]
    )


def test_shared_sites_are_refused_with_their_elements() -> None:
    (entry,) = read_entries(FAULTS / "hea_partial_occupancy.cif")
    assert entry.atoms is None
    assert "occupied in part (Pt 0.4, Ru 0.3, Ir 0.3)" in entry.error


def test_a_tagged_dopant_has_the_sites_of_its_untagged_twin() -> None:
    tagged, untagged = (
        sites_per_atom(atoms) for atoms in ase.io.read(FAULTS / "tags_dopant.traj", ":")
    )
    assert tagged == untagged
    assert len(tagged) == 9


@pytest.mark.parametrize("order", [1, -1])
def test_unstrained_platinum_is_the_reference(order: int) -> None:
    entries = read_entries(FAULTS / "strained_Pt111_first.traj")[::order]
    plans = [plan_slab(e, model=EMT_MODEL, settings=fast()) for e in entries]
    chosen, source = plan_pt111(plans, EMT(), EMT_MODEL, fast())
    assert source == "'Pt 0' of the input"
    assert chosen is not None
    assert chosen.name == "Pt 0"


def test_nine_slabs_with_colliding_names_are_nine_rows(tmp_path: Path) -> None:
    entries = read_entries(FAULTS / "names_collide.traj")
    frames = ase.io.read(FAULTS / "names_collide.traj", ":")
    run(tmp_path, entries, settings=fast(max_sites=1, fmax=0.3))
    screening = read_screening(tmp_path)
    found = {row["slab"]: row["formula"] for row in screening.slabs}
    assert len(entries) == len(found) == 9
    for given, entry in zip(frames, named(entries), strict=True):
        assert found[entry] == given.get_chemical_formula(mode="metal")
    assert {"dup #1", "dup #2", "dup #3", "x y #1", "x y #2"} <= set(found)
    assert found["Pt(111) reference"] == "Pd3"


def named(entries: tuple[StructureEntry, ...]) -> list[str]:
    return [entry.name for entry in entries]
