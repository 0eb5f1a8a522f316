"""How often a step of dynamics in ASE makes the host wait for a GPU: three times.

The branches of a GPU run on the CPU here; `tests/models/test_host_waits.py` has what
counts, and that a call of the model itself waits for nothing.
"""

import numpy as np
import pytest
from ase import units
from ase.md.verlet import VelocityVerlet

from crack_md import CrackCalculator
from crack_md.models.domain import ShortestDistances
from crack_md.models.force_field import ForceField, ModelMetadata
from tests.factories import ELEMENTS, oxygen_slab, tiny_model
from tests.gpu_branches import take_gpu_branches
from tests.models.test_host_waits import waits

STEP = [
    "aten::lift_fresh",  # positions, which ASE keeps on the host, go up
    "tolist",  # how wide the table of neighbors is, and how many they are
    *("cpu", "numpy"),  # energy, forces, stress and nearness come down, in one copy
]


def watched_model() -> ForceField:
    distances = ShortestDistances({(8, 78): 1.0, (78, 78): 2.0})
    metadata = ModelMetadata("total", ELEMENTS, shortest_distances=distances)
    return tiny_model(metadata=metadata)


def test_a_step_in_ase_waits_three_times(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = oxygen_slab()
    atoms.calc = CrackCalculator(watched_model(), device="cpu", dtype="float64")
    atoms.set_velocities(np.random.default_rng(0).normal(size=(13, 3)) * 1e-3)
    take_gpu_branches(atoms.calc.models[0], monkeypatch)
    dynamics = VelocityVerlet(atoms, units.fs)
    dynamics.run(2)
    with waits() as found:
        dynamics.run(3)
    assert found == 3 * STEP
    assert {"stress", "domain_distance"} <= set(atoms.calc.results)
