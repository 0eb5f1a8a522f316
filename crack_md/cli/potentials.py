"""From the name of a model to its calculator and what a workflow must know of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import ase
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols

from crack_md.workflows.results import ModelInfo


def load_potential(
    model: str,
    *,
    device: str = "auto",
    dtype: Literal["float32", "float64"] = "float32",
    gas_energies: Mapping[str, float] | None = None,
) -> tuple[BaseCalculator, ModelInfo]:
    """Return the calculator of a model and its description.

    Args:
        model: "default", a model file, or "emt".
        device: where a neural network runs.
        dtype: precision of a neural network.
        gas_energies: replaces the energies of gas molecules stored in the model.

    Raises:
        CheckpointError: the model cannot be read.
    """
    if model == "emt":
        from ase.calculators.emt import EMT, parameters

        info = ModelInfo(
            name="emt",
            sha256=f"ase-{ase.__version__}",
            energy_reference="total",
            gas_references=dict(gas_energies or {}),
            elements=frozenset(parameters),
        )
        return EMT(), info
    from crack_md.calculators import CrackCalculator

    calculator = CrackCalculator(model, device=device, dtype=dtype)
    known = calculator.metadata
    info = ModelInfo(
        name=model,
        sha256=calculator.model_sha256,
        energy_reference=known.energy_reference,
        gas_references=dict(gas_energies or known.gas_references),
        elements=frozenset(chemical_symbols[number] for number in known.elements)
        or None,
    )
    return calculator, info


def identity(info: ModelInfo) -> dict[str, str]:
    """Return what results of two runs must share to be of one model."""
    return {"model": Path(info.name).name, "model_sha256": info.sha256}


def has_direct_forces(calculator: BaseCalculator) -> bool:
    """Return whether forces are a head of a network, not the gradient of an energy."""
    return getattr(calculator, "forces_kind", "gradient") == "direct"
