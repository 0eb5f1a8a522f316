"""Calculators by name for the benchmarks, and gas-phase energies by the same model."""

from pathlib import Path

from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import BaseCalculator

from crack_md.cli.potentials import load_potential
from crack_md.models.pickles import file_sha256
from crack_md.workflows.relax import relax
from crack_md.workflows.results import ModelInfo

BOX_A = 12.0


def benchmark_potential(name: str) -> tuple[BaseCalculator, ModelInfo]:
    """Return a calculator and its description, gas energies included.

    Args:
        name: what ``crack-md screen --model`` takes, or ``nequix:WEIGHTS.nqx``. Nequix
            writes a converted file beside the weights: give it a copy.
    """
    if name.startswith("nequix:"):
        calculator = _nequix(Path(name.removeprefix("nequix:")))
        weights = Path(name.removeprefix("nequix:"))
        info = ModelInfo(weights.stem, file_sha256(weights), "total", {})
    else:
        calculator, info = load_potential(name)
    if info.energy_reference == "total" and not info.gas_references:
        gases = {gas: gas_energy(gas, calculator) for gas in ("H2O", "H2")}
        info = ModelInfo(info.name, info.sha256, "total", gases, info.elements)
    return calculator, info


def gas_energy(name: str, calculator: BaseCalculator) -> float:
    """Return the energy in eV of a relaxed molecule in a periodic box."""
    gas: Atoms = molecule(name, cell=[BOX_A] * 3, pbc=True)
    gas.center()
    return relax(gas, calculator, fmax=0.005).energy


def _nequix(weights: Path) -> BaseCalculator:
    from nequix.calculator import NequixCalculator

    return NequixCalculator(
        model_path=str(weights), backend="torch", use_kernel=False, use_compile=False
    )
