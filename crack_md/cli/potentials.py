"""From the name of a model to its calculator and what a workflow must know of it."""

from collections.abc import Mapping

import ase
from ase.calculators.calculator import BaseCalculator
from ase.data import chemical_symbols

from crack_md.workflows.results import ModelInfo


def load_potential(
    model: str,
    *,
    device: str = "auto",
    gas_energies: Mapping[str, float] | None = None,
) -> tuple[BaseCalculator, ModelInfo]:
    """Return the calculator of a model and its description.

    Args:
        model: "default", a model file, or "emt".
        device: where a neural network runs.
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

    calculator = CrackCalculator(model, device=device)
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
