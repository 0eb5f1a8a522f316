"""The functions of the package on EMT: what the commands do, in one call each."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from crack_md import check_sampling, compute_phonons, relax, run_md, screen
from crack_md.api.inputs import describe_calculator
from crack_md.api.runs import RelaxationResults
from crack_md.api.screening import ScreeningResults
from crack_md.errors import ConfigError, DataError, StructureError
from crack_md.workflows.surfaces.cut import CutSettings, parse_planes

GASES = {"H2O": 0.0, "H2": 1.5}


def slab(symbol: str) -> Atoms:
    atoms = fcc111(symbol, (1, 1, 3), vacuum=8.0)
    atoms.info["name"] = f"{symbol}(111)"
    return atoms


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> ScreeningResults:
    return screen(
        [slab("Pt"), slab("Cu")],
        EMT(),
        adsorbates=["O"],
        out=tmp_path_factory.mktemp("results"),
        gas_energies=GASES,
        fmax=0.1,
        max_sites=2,
    )


def test_screening_ranks_structures_from_memory(screened: ScreeningResults) -> None:
    assert {row["slab"] for row in screened.ranking} == {"Pt(111)", "Cu(111)"}
    assert [row["rank"] for row in screened.ranking] == [1, 2]
    written = list(
        csv.DictReader((screened.folder / "results.csv").read_text().split("\n"))
    )
    assert [row["slab"] for row in written] == [row["slab"] for row in screened.rows]
    first = screened.rows[0]
    assert float(written[0]["dE_O_H2O_H2_eV"]) == pytest.approx(
        first["dE_O_H2O_H2_eV"], abs=5e-5
    )
    assert screened.slabs[0].best is not None
    assert screened.summary["settings"]["fmax_eV_per_A"] == 0.1
    assert (screened.folder / "report.html").exists()


def test_screening_results_are_shown(
    screened: ScreeningResults, tmp_path: Path
) -> None:
    image = screened.plot_volcano(tmp_path / "volcano.png").read_bytes()
    assert image.startswith(b"\x89PNG")
    assert image == (screened.folder / "volcano.png").read_bytes()
    assert screened.plot_free_energy(tmp_path / "steps.png").stat().st_size > 1000
    page = screened._repr_html_()
    assert page.startswith("<table>")
    assert "Pt(111)" in page
    assert "<th>U_L_V</th>" in page


def test_rows_become_a_data_frame(screened: ScreeningResults) -> None:
    pandas = pytest.importorskip("pandas")
    frame = screened.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["slab"]) == [row["slab"] for row in screened.rows]


def test_a_screening_goes_on_and_cuts_bulks(tmp_path: Path) -> None:
    options: dict[str, Any] = {"gas_energies": GASES, "fmax": 0.2, "max_sites": 1}
    cut = CutSettings(parse_planes("111"), thickness_A=4.0, width_A=2.0)
    ase.io.write(tmp_path / "Cu.cif", bulk("Cu", cubic=True))
    first, again = (
        screen(tmp_path / "Cu.cif", EMT(), out=tmp_path / "out", cut=cut, **options)
        for _ in range(2)
    )
    assert [slab.name for slab in first.slabs] == ["Cu(111)"]
    assert again.result.n_relaxed == 0
    assert again.result.n_reused == first.result.n_relaxed > 0
    assert again.ranking == first.ranking


def test_coverages_are_numbers_in_a_list(tmp_path: Path) -> None:
    slab = fcc111("Cu", (2, 1, 3), vacuum=8.0)
    options: dict[str, Any] = {"gas_energies": GASES, "fmax": 0.2}
    found = screen(slab, EMT(), out=tmp_path, coverages=[1.0, 0.5], **options)
    half, full = next(iter(found.result.coverages.values()))
    assert (half.n_adsorbed, full.n_adsorbed) == (1, 2)
    assert found.ranking[0]["dE_O_mean_at_1_ML_eV"] == pytest.approx(
        full.mean_eV, abs=1e-4
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coverages": [2]}, "coverage 2; expected monolayers"),
        ({"fmaks": 0.1}, r"screen\(\) has no option fmaks; it has: adsorbates, fmax"),
        ({"corrections": "none"}, "unknown corrections 'none'"),
        ({"adsorbates": "Xx"}, "unknown adsorbate 'Xx'"),
        ({"select": "metal=Pt"}, "for databases"),
        ({"gas_energies": {"H2": 0.0}}, "missing: H2O"),
    ],
)
def test_wrong_options_leave_no_folder(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    given = {"gas_energies": GASES, **options}
    with pytest.raises(ConfigError, match=message):
        screen([slab("Cu")], EMT(), out=tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()
    with pytest.raises(DataError, match="no structures given"):
        screen([], EMT(), out=tmp_path / "out")


def test_relaxed_structures_come_in_the_order_given(tmp_path: Path) -> None:
    strained = [bulk("Cu", cubic=True, a=a) for a in (3.5, 3.7)]
    strained.append(bulk("Fe", cubic=True))
    results = relax(strained, EMT(), out=tmp_path, cell="full", fmax=1e-3)
    assert isinstance(results, RelaxationResults)
    one, two, iron = results.structures
    assert one is not None
    assert two is not None
    assert iron is None
    assert one.get_volume() == pytest.approx(two.get_volume(), rel=1e-3)
    assert [row["status"] for row in results.rows] == [
        *("converged", "converged", "unknown_element")
    ]
    assert [row["name"] for row in results.rows] == ["Cu4 #1", "Cu4 #2", "Fe2"]
    assert "unknown_element" in results._repr_html_()


def test_dynamics_go_on(tmp_path: Path) -> None:
    start = bulk("Cu", cubic=True)
    options: dict[str, Any] = {"ensemble": "nve", "restart_every": 1, "out": tmp_path}
    run_md(start, EMT(), steps=5, **options)
    result = run_md(start, EMT(), steps=10, **options)
    assert result.step == 10
    assert result.summary["cost"]["steps_done_now"] == 5
    assert "finished" in result._repr_html_()
    with pytest.raises(StructureError, match="does not know Fe; it was trained on"):
        run_md(bulk("Fe"), EMT(), out=tmp_path / "iron")
    assert not (tmp_path / "iron").exists()


def test_phonons_of_a_file(tmp_path: Path) -> None:
    pytest.importorskip("phonopy")
    ase.io.write(tmp_path / "Cu.cif", bulk("Cu"))
    result = compute_phonons(
        tmp_path / "Cu.cif", EMT(), out=tmp_path / "out", supercell=(2, 2, 2)
    )
    assert result.phonons.max_frequency == pytest.approx(7.9, abs=1.0)
    assert (tmp_path / "out" / "bands.png").exists()
    assert "<th>formula</th><td>Cu</td>" in result._repr_html_()


def test_sampling_of_a_reference_beside_itself(tmp_path: Path) -> None:
    rng, frames = np.random.default_rng(0), []
    for _ in range(64):
        water = Atoms("Cu3", [[0, 0, 0], [2.3, 0, 0], [1.15, 2.0, 0]])
        water.positions += 0.05 * rng.standard_normal((3, 3))
        frames.append(water)
    ase.io.write(tmp_path / "frames.extxyz", frames)
    found = check_sampling(
        tmp_path / "frames.extxyz", None, out=tmp_path / "out", temperature_K=300.0
    )
    record = json.loads((tmp_path / "out" / "sampling.json").read_text())
    assert record["verdict"] == found.verdict.status
    assert found.verdict.status in found._repr_html_()


class Spring(Calculator):
    """Any ASE calculator: it says nothing about itself."""

    implemented_properties = ("energy", "forces")
    default_parameters = {"k": 1.0}  # noqa: RUF012

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        super().calculate(atoms, properties, system_changes)
        assert atoms is not None
        k = self.parameters["k"]
        self.results = {
            "energy": float(0.5 * k * (atoms.positions**2).sum()),
            "forces": -k * atoms.positions,
        }


def test_any_calculator_is_known_by_class_and_parameters(tmp_path: Path) -> None:
    soft, hard = describe_calculator(Spring()), describe_calculator(Spring(k=2.0))
    assert soft.name == "Spring"
    assert soft.energy_reference == "total"
    assert soft.sha256 == describe_calculator(Spring()).sha256 != hard.sha256
    start = Atoms("Cu", [[0.3, 0.0, 0.0]])
    relax(start, Spring(), out=tmp_path)
    with pytest.raises(DataError, match="model_sha256"):
        relax(start, Spring(k=2.0), out=tmp_path)
