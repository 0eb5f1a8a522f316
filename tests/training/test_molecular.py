"""Training the student of one molecule: it finds the molecule in its data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT

from crack_md.data.dataset import LabelledStructure
from crack_md.errors import ConfigError, DataError
from crack_md.models.architectures.molecular import Molecular, MolecularConfig
from crack_md.models.checkpoint import load_model
from crack_md.training.config import check_config
from crack_md.training.loop.run import RunFolder
from crack_md.training.loop.train import train
from tests.training.factories import recipe, write_dataset

WATER = {"name": "molecular", "hidden_channels": 16}


def frame(atoms: Atoms, number: int) -> LabelledStructure:
    atoms.rattle(0.05, seed=number)
    atoms.calc = EMT()
    return LabelledStructure(
        atoms,
        atoms.get_potential_energy(),
        atoms.get_forces(),
        None,
        f"g{number}",
        "thermal",
        np.ones(len(atoms), dtype=bool),
        split="val" if number % 4 == 3 else "train",
    )


def write(path: Path, structures: list[Atoms]) -> Path:
    frames = [frame(atoms, number) for number, atoms in enumerate(structures)]
    return write_dataset(path, frames)


def config_of(data: Path, folder: Path, **student: Any) -> Any:
    tree = recipe(data, folder, max_steps=30, batch_size=8)
    tree["student"] = {"architecture": WATER, **student}
    tree["losses"] = [{"kind": "task", "energy_weight": 1.0, "force_weight": 1.0}]
    return check_config(tree, source="test")


def test_a_run_finds_the_molecule_and_learns(tmp_path: Path) -> None:
    data = write(tmp_path / "water.aselmdb", [molecule("H2O") for _ in range(16)])
    train(config_of(data, tmp_path / "run"), quiet=True)
    model = load_model(tmp_path / "run" / "student.pt")
    config = model.network.config
    assert isinstance(config, MolecularConfig)
    assert (config.atoms, config.bonds) == ("O H H", "0-1 0-2")
    losses = [
        one["loss"] for one in RunFolder(tmp_path / "run").metrics() if "loss" in one
    ]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert isinstance(model.network, Molecular)
    assert float(model.network.spread.max()) < 0.2, "as in the data"
    config = config_of(
        data, tmp_path / "more", init_from=str(tmp_path / "run" / "student.pt")
    )
    train(config, quiet=True)


def test_frames_of_two_molecules_are_refused(tmp_path: Path) -> None:
    both = [molecule(name) for name in ("H2O", "CO2") for _ in range(8)]
    data = write(tmp_path / "both.aselmdb", both)
    with pytest.raises(DataError, match="one molecule in vacuum, and the data have"):
        train(config_of(data, tmp_path / "run"), quiet=True)


def test_a_recipe_may_not_name_another_molecule(tmp_path: Path) -> None:
    data = write(tmp_path / "water.aselmdb", [molecule("H2O") for _ in range(16)])
    config = config_of(data, tmp_path / "run", architecture=WATER | {"atoms": "O O O"})
    with pytest.raises(ConfigError, match="leave both out: they are found in the data"):
        train(config, quiet=True)


def test_weights_of_another_molecule_are_refused(tmp_path: Path) -> None:
    water = write(tmp_path / "water.aselmdb", [molecule("H2O") for _ in range(16)])
    other = write(
        tmp_path / "other.aselmdb", [molecule("H2O")[[1, 0, 2]] for _ in range(16)]
    )
    train(config_of(water, tmp_path / "run"), quiet=True)
    config = config_of(
        other, tmp_path / "more", init_from=str(tmp_path / "run" / "student.pt")
    )
    with pytest.raises(ConfigError, match="is a model of the molecule 'O H H'"):
        train(config, quiet=True)
