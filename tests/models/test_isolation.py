"""Atoms alone: their own energies, reached smoothly, and nothing of it in crystals."""

import math
from pathlib import Path

import ase
import numpy as np
import pytest
import torch
from ase.build import fcc111

from crack_md.data.dataset import LabelledStructure
from crack_md.data.statistics import fit_isolated_references
from crack_md.models.architectures import architecture_from, build_network
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.models.network import isolation
from crack_md.neighbors import build_graph

ALONE = {8: -1.5, 78: -0.7}


def model(isolated: dict[int, float]) -> ForceField:
    torch.manual_seed(0)
    options = {"name": "ace", "channels": 4, "hidden_channels": 8, "messages": 4}
    network = build_network(architecture_from(options))
    scale = EnergyScale(
        element_references={8: -5.0, 78: -6.0}, isolated_references=isolated
    )
    return ForceField(network, scale, ModelMetadata("total", (8, 78))).double().eval()


def energy_and_forces(force_field: ForceField, atoms: ase.Atoms) -> tuple[float, float]:
    graph = build_graph(atoms, force_field.rule, dtype=torch.float64)
    prediction = force_field(graph)
    return prediction.energy.item(), prediction.forces[-1, 2].item()


def dimer(length: float) -> ase.Atoms:
    return ase.Atoms("PtO", [[0, 0, 0], [0, 0, length]], cell=[15] * 3, pbc=True)


def test_isolation_of_two_atoms_by_hand() -> None:
    network = model(ALONE).network
    graph = build_graph(dimer(2.25), network.config.rule, dtype=torch.float64)
    u = 1 - 28 / 64 + 48 / 128 - 21 / 256  # at half the cutoff of 4.5 Å
    expected = pytest.approx([math.exp(-3 * u)] * 2, abs=1e-12)
    assert isolation(network.edges(graph), 4.5).tolist() == expected


def test_an_atom_alone_has_its_own_energy() -> None:
    atom = ase.Atoms("O", cell=[12] * 3, pbc=True)
    assert energy_and_forces(model(ALONE), atom)[0] == pytest.approx(-1.5, abs=1e-12)
    assert energy_and_forces(model({}), atom)[0] == pytest.approx(-5.0, abs=1e-12)


def test_a_dimer_pulled_apart_ends_there_without_a_step() -> None:
    force_field = model(ALONE)
    energy, force = energy_and_forces(force_field, dimer(4.4999))
    assert energy == pytest.approx(-2.2, abs=1e-6)
    assert force == pytest.approx(0.0, abs=1e-4)


def test_forces_follow_the_energy() -> None:
    force_field = model(ALONE)
    up, down = (
        energy_and_forces(force_field, dimer(3.2 + d))[0] for d in (1e-4, -1e-4)
    )
    force = energy_and_forces(force_field, dimer(3.2))[1]
    assert force == pytest.approx(-(up - down) / 2e-4, abs=1e-7)


def test_surfaces_hardly_feel_it() -> None:
    slab = fcc111("Pt", (1, 1, 3), a=3.97, vacuum=6.0, periodic=True)
    with_it, without = (energy_and_forces(model(x), slab)[0] for x in (ALONE, {}))
    assert with_it == pytest.approx(without, abs=1e-4)


def test_files_keep_it_and_older_files_have_none(tmp_path: Path) -> None:
    save_model(model(ALONE), tmp_path / "new.pt")
    save_model(model({}), tmp_path / "old.pt")
    assert load_model(tmp_path / "new.pt").scale.isolated_references == ALONE
    assert load_model(tmp_path / "old.pt").scale.isolated_references == {}
    content = torch.load(tmp_path / "old.pt", weights_only=True)
    assert "isolated_references" not in content


def labelled(atoms: ase.Atoms, energy: float) -> LabelledStructure:
    forces, free = np.zeros((len(atoms), 3)), np.ones(len(atoms), dtype=bool)
    return LabelledStructure(atoms, energy, forces, None, "g", "dimer", free)


def test_frames_pulled_apart_tell_the_energies() -> None:
    bonded = labelled(dimer(1.8), -8.0)
    frames = [
        bonded,
        labelled(dimer(4.4), -2.2),
        labelled(ase.Atoms("Pt", cell=[12] * 3, pbc=True), -0.7),
    ]
    found = fit_isolated_references(frames, 4.5)
    assert found == pytest.approx(ALONE)
    assert fit_isolated_references([bonded], 4.5) == {}
