from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from crack_md.data.prepare.rmd17 import prepare_rmd17
from crack_md.errors import ConfigError, DataError
from crack_md.workflows.sampling.reference import (
    ReferenceFrames,
    md17_temperature,
    read_reference,
)

KCAL = units.kcal / units.mol


def frames(count: int = 20, **info: float) -> list[Atoms]:
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        atoms = molecule("H2O")
        atoms.positions += 0.05 * rng.normal(size=(3, 3))
        atoms.info = dict(info)
        forces = rng.normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, energy=float(number), forces=forces)
        made.append(atoms)
    return made


def write_npz(path: Path, indices: list[int]) -> Path:
    """Write water frames in rMD17's form: everything says the frame's number."""
    z = np.array([8, 1, 1], dtype=np.uint8)
    index = np.array(indices)
    rows = np.ones((len(index), 3, 3)) * index[:, None, None]
    np.savez(
        path,
        nuclear_charges=z,
        coords=rows + molecule("H2O").positions,
        energies=-1.0 * index,
        forces=-rows,
        old_energies=1.0 * index,
        old_forces=rows,
        old_indices=index,
    )
    return path


def test_splits_of_rmd17_are_joined_in_the_order_of_time(tmp_path: Path):
    write_npz(tmp_path / "rmd17_water_train_01.npz", [*range(30, 10, -1), 3])
    write_npz(tmp_path / "rmd17_water_test_02.npz", [5, 30, 3])
    found = read_reference(tmp_path)
    assert found.energies is not None
    assert found.forces is not None
    order = [3, 5, *range(11, 31)]
    assert found.energies.tolist() == pytest.approx([KCAL * i for i in order])
    assert found.forces[:, 0, 0].tolist() == pytest.approx([KCAL * i for i in order])
    assert found.positions[:, 0, 0].tolist() == [float(i) for i in order]
    assert found.n_duplicates == 2
    recomputed = read_reference(tmp_path, labels="recomputed")
    assert recomputed.energies is not None
    assert recomputed.energies[0] == pytest.approx(-3 * KCAL)
    assert recomputed.labels == "rMD17, recomputed"


def test_one_file_of_rmd17_and_its_temperature(tmp_path: Path):
    path = write_npz(tmp_path / "rmd17_water.npz", list(range(20)))
    found = read_reference(path)
    # 500 K · 9/3: all the heat of nine degrees of freedom is in three
    assert found.temperature_K == md17_temperature(3) == 1500.0
    assert "3N/(3N−6)" in found.temperature_source
    assert read_reference(path, temperature_K=500.0).temperature_K == 500.0
    assert md17_temperature(9) == pytest.approx(642.857, abs=1e-3)
    assert md17_temperature(21) == pytest.approx(552.632, abs=1e-3)


@pytest.mark.parametrize("name", ["frames.extxyz", "frames.db", "frames.traj"])
def test_files_of_ase(tmp_path: Path, name: str):
    path, written = tmp_path / name, frames()
    written.append(written[3].copy())  # twice the same frame
    written[-1].calc = written[3].calc
    if path.suffix == ".db":
        database = connect(path)
        for atoms in written:
            database.write(atoms, temperature_K=300.0)
    else:
        for atoms in written:
            atoms.info["temperature_K"] = 300.0
        ase.io.write(path, written)
    found = read_reference(path)
    assert len(found) == 20
    assert found.n_duplicates == 1
    assert found.energies is not None
    assert found.energies.tolist() == [float(i) for i in range(20)]
    assert found.forces is not None
    assert np.allclose(found.forces[7], written[7].get_forces(), atol=1e-6)
    assert (found.temperature_K, found.temperature_source) == (300.0, "the file")


@pytest.mark.parametrize("name", ["water.extxyz", "water.db"])
def test_datasets_that_prepare_made(tmp_path: Path, name: str):
    write_npz(tmp_path / "rmd17_water_train_01.npz", list(range(40, 10, -1)))
    path = tmp_path / name
    prepare_rmd17([tmp_path / "rmd17_water_train_01.npz"], path, labels="old")
    found = read_reference(path)
    assert found.energies is not None
    assert np.allclose(found.energies, KCAL * np.arange(11, 41))
    assert found.temperature_K == 1500.0
    assert found.labels == "rMD17 old"


def test_labels_may_be_missing(tmp_path: Path):
    written = frames()
    for atoms in written:
        atoms.calc = None
    ase.io.write(tmp_path / "bare.extxyz", written)
    found = read_reference(tmp_path / "bare.extxyz")
    assert found.energies is None
    assert found.forces is None
    with pytest.raises(ConfigError, match="give --temperature"):
        _ = found.known_temperature


def test_what_is_no_reference(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        read_reference(tmp_path / "absent.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no rMD17 files"):
        read_reference(tmp_path / "empty")
    ase.io.write(tmp_path / "few.extxyz", frames(3))
    with pytest.raises(DataError, match="has 3 frames"):
        read_reference(tmp_path / "few.extxyz")
    periodic = frames()
    for atoms in periodic:
        atoms.set_cell([9, 9, 9])
        atoms.pbc = True
    ase.io.write(tmp_path / "periodic.extxyz", periodic)
    with pytest.raises(DataError, match="is periodic"):
        read_reference(tmp_path / "periodic.extxyz")
    ase.io.write(tmp_path / "mixed.extxyz", [*frames(), molecule("CH4")])
    with pytest.raises(DataError, match="several molecules"):
        read_reference(tmp_path / "mixed.extxyz")
    hot = [*frames(temperature_K=300.0), *frames(temperature_K=400.0)]
    ase.io.write(tmp_path / "hot.extxyz", hot)
    with pytest.raises(DataError, match="300 K, 400 K"):
        read_reference(tmp_path / "hot.extxyz")
    broken = np.ones((20, 3, 3))
    broken[4] = np.nan
    with pytest.raises(DataError, match="not finite"):
        ReferenceFrames("here", np.array([8, 1, 1]), broken)


def test_some_of_the_frames():
    positions = np.arange(100.0)[:, None, None] * np.ones((100, 3, 3))
    whole = ReferenceFrames("here", np.array([8, 1, 1]), positions, np.arange(100.0))
    few = whole.thin(20)
    assert len(few) == 20
    assert few.energies is not None
    assert (few.energies[0], few.energies[-1]) == (0.0, 99.0)
    assert whole.thin(500) is whole
    assert few.sha256 != whole.sha256
    assert few.sha256 == whole.thin(20).sha256


@pytest.mark.parametrize(("molecule", "virial_K"), [("ethanol", 621), ("aspirin", 526)])
def test_rmd17_itself(references: Path, molecule: str, virial_K: int):
    from crack_md.workflows.sampling.temperature import virial_temperature

    found = read_reference(references / "data" / "rmd17", molecule=molecule)
    assert len(found) == 5902
    assert found.n_duplicates == 98
    assert found.forces is not None
    virial = virial_temperature(found.positions, found.forces)
    assert virial.value == pytest.approx(virial_K, abs=1)
