"""Which frames a run uses."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms

from crack_md.data.dataset import LabelledDataset, LabelledStructure
from crack_md.training.config import DataConfig, TrainConfig
from crack_md.training.data.source import nearest_share, read_training_data, usable


def dimer(distance_A, symbols="PtO"):
    return Atoms(symbols, [[0, 0, 0], [0, 0, distance_A]], cell=[12] * 3, pbc=True)


def frame(atoms):
    n = len(atoms)
    return LabelledStructure(
        atoms, 0.0, np.zeros((n, 3)), None, "g", "dimer", np.ones(n, dtype=bool)
    )


def test_the_nearest_pair_is_measured_in_covalent_radii():
    # Cordero 2008: Pt 1.36 Å, O 0.66 Å
    assert nearest_share(dimer(1.01)) == pytest.approx(1.01 / 2.02, abs=1e-4)
    assert nearest_share(dimer(5.0)) == np.inf


def test_an_image_of_the_atom_itself_counts():
    chain = Atoms("Pt", cell=[1.36, 12, 12], pbc=True)

    assert nearest_share(chain) == pytest.approx(0.5, abs=1e-4)


def test_frames_below_the_share_are_not_used():
    frames = [frame(dimer(length)) for length in (1.0, 1.4, 5.0)]
    data = DataConfig.model_validate({"path": "x", "nearest": 0.6})

    assert usable(frames, data) == tuple(frames[1:])
    assert list(usable(frames, DataConfig(path="x"))) == frames


def test_frames_with_larger_forces_are_not_used():
    steep = frame(dimer(1.9))
    steep.forces[0] = [3.0, 0.0, 4.0]  # 5 eV/Å
    gentle = frame(dimer(2.0))

    data = DataConfig.model_validate({"path": "x", "largest_force": 4.9})
    assert usable([steep, gentle], data) == (gentle,)
    data = DataConfig.model_validate({"path": "x", "largest_force": 5.0})
    assert usable([steep, gentle], data) == (steep, gentle)


def test_frames_that_are_left_out_are_counted():
    frames = [frame(dimer(length)) for length in (1.0, 1.9, 2.0, 5.0)]
    kept = [replace(one, split="train") for one in frames]
    config = TrainConfig.model_validate(
        {
            "student": {"architecture": {"name": "ace"}},
            "data": {
                "path": "x",
                "nearest": 0.6,
                "replay": [{"path": "y", "repeats": 2}],
            },
            "losses": [{"kind": "task", "energy_weight": 1, "force_weight": 1}],
            "optimizer": {"lr": 1e-3},
            "run": {"folder": "run", "batch_size": 1, "max_steps": 1},
        }
    )

    data = read_training_data(config, read=lambda _: LabelledDataset(tuple(kept), {}))

    assert data.n_left_out == 2  # one of each set
    assert len(data.train) == 3 + 2 * 3
