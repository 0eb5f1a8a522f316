"""Models for a calculator: files, names or objects, on one device in one precision."""

from collections.abc import Sequence
from pathlib import Path

import torch

from crack_md.errors import ConfigError
from crack_md.models.bfloat16 import use_bfloat16
from crack_md.models.checkpoint import load_model
from crack_md.models.force_field import ForceField
from crack_md.models.precision import with_products_in, with_tf32_products

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.float32,
    "tf32": torch.float32,
}
"""Precision of all but the large products."""

Source = str | Path | ForceField


def find_device(device: str | torch.device) -> torch.device:
    """Return the device of a name; "auto" is a GPU where there is one.

    Raises:
        ConfigError: there is no such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"unknown device {device!r}; expected 'auto', 'cpu' or 'cuda[:index]'"
        ) from error
    if found.type not in ("cpu", "cuda") or (found.type == "cpu" and found.index):
        # float64 positions, which forces need, do not exist on the others
        raise ConfigError(
            f"device {device!r} is not supported; expected 'auto', 'cpu' or "
            "'cuda[:index]'"
        )
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r}: no GPU is available; use device='cpu'")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r}: there are {torch.cuda.device_count()} GPUs, counted "
            "from 0"
        )
    return found


def load_members(
    sources: Sequence[Source], device: torch.device, dtype: str
) -> list[ForceField]:
    """Return the models of a committee, ready for use and never trained.

    Raises:
        CheckpointError: a model file cannot be used.
        ConfigError: no model, an unknown precision, or energies of unlike meaning.
    """
    if not sources:
        raise ConfigError("an empty list of models; expected at least one")
    if dtype not in DTYPES:
        raise ConfigError(f"unknown dtype {dtype!r}; expected one of {sorted(DTYPES)}")
    if dtype == "tf32" and device.type != "cuda":
        raise ConfigError(
            f"dtype 'tf32' is a format of GPUs, and the device is {device}; use "
            "'float32' or 'bfloat16'"
        )
    models = []
    for source in sources:
        model = source if isinstance(source, ForceField) else load_model(source)
        model = model.to(device=device, dtype=DTYPES[dtype]).eval()
        if dtype == "bfloat16" and use_bfloat16(device):
            model = with_products_in(model, torch.bfloat16)
        elif dtype == "tf32":
            model = with_tf32_products(model)
        models.append(model.requires_grad_(requires_grad=False))
    references = {model.metadata.energy_reference for model in models}
    if len(references) > 1:
        raise ConfigError(
            "a committee of total-energy and adsorption-energy models; "
            "expected members with the same energy reference"
        )
    return models
