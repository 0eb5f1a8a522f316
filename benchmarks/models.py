"""Models and calculators by name for the benchmarks, and gas-phase energies."""

import dataclasses
from typing import Literal

import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols

from crack_md.api.inputs import load_potential
from crack_md.models.checkpoint import load_model
from crack_md.models.equiformer.equiformer_v2 import EquiformerV2, EquiformerV2Config
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.models.teachers import TeacherCalculator, load_teacher
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.relax.relax import RelaxSettings, relax_atoms

BOX_A = 12.0


def benchmark_potential(name: str) -> tuple[BaseCalculator, ModelInfo]:
    """Return a calculator and its description, gas energies included.

    Args:
        name: what `named_potential` takes.
    """
    calculator, info = named_potential(name)
    if info.energy_reference == "total" and not info.gas_references:
        gases = {gas: gas_energy(gas, calculator) for gas in ("H2O", "H2")}
        info = ModelInfo(info.name, info.sha256, "total", gases, info.elements)
    return calculator, info


def named_potential(
    name: str, *, dtype: Literal["float32", "float64"] = "float32"
) -> tuple[BaseCalculator, ModelInfo]:
    """Return a calculator and its description.

    Args:
        name: what ``crack-md screen --model`` takes, or a teacher, kind first:
            ``nequix:WEIGHTS.nqx``, ``fairchem:CHECKPOINT.pt#TASK``.
        dtype: precision of our own models; teachers have that of their weights.
    """
    if ":" not in name:
        return load_potential(name, dtype=dtype)
    teacher = load_teacher(name)
    numbers = teacher.elements or ()
    known = frozenset(chemical_symbols[number] for number in numbers) or None
    reference = teacher.energy_reference
    info = ModelInfo(teacher.name, teacher.sha256, reference, {}, known)
    return TeacherCalculator(teacher), info


def gas_energy(name: str, calculator: BaseCalculator) -> float:
    """Return the energy in eV of a relaxed molecule in a periodic box."""
    gas: Atoms = molecule(name, cell=[BOX_A] * 3, pbc=True)
    gas.center()
    return relax_atoms(gas, calculator, settings=RelaxSettings(fmax=0.005)).energy


def load_network(name: str) -> ForceField:
    """Return a model by name or file; "22M" is `random_22m`."""
    model = random_22m() if name == "22M" else load_model(name)
    return model.eval().requires_grad_(requires_grad=False)


def random_22m() -> ForceField:
    """Return a model of the published student's architecture with random weights."""
    config = EquiformerV2Config(num_layers=2, delta=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EquiformerV2(config)
    elements = tuple(range(1, config.num_elements))
    return ForceField(network, EnergyScale(), ModelMetadata("total", elements)).eval()


def with_direct_forces(model: ForceField) -> ForceField:
    """Return the model with a random head for forces as its only change."""
    config = dataclasses.replace(model.network.config, forces="direct")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = EquiformerV2(config)
    network.load_state_dict(model.network.state_dict(), strict=False)
    return ForceField(network, model.scale, model.metadata).eval()
