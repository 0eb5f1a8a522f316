"""The architectures by name, and networks made from what files and recipes say."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from crack_md.errors import CheckpointError
from crack_md.models.architectures.ace import Ace, AceConfig
from crack_md.models.architectures.molecular import Molecular, MolecularConfig
from crack_md.models.architectures.painn import Painn, PainnConfig
from crack_md.models.equiformer.equiformer_v2 import EquiformerV2, EquiformerV2Config
from crack_md.models.network import Architecture, Network


class ElementBudget(TorchDispatchMode):
    """Refuses tensors, while it is entered, once they have too many elements in all.

    An architecture that a file describes may be any number of times larger than the
    weights beside it: it would fill the memory before the two are compared.

    Args:
        most: elements of all new tensors together.
    """

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most = self._left = most

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count the elements of a new tensor before it is made."""
        size = args[0] if args else None
        if isinstance(size, list | tuple) and all(isinstance(n, int) for n in size):
            self._left -= math.prod(size)
        if self._left < 0:
            raise ValueError(f"it has more than {self._most:,} numbers")
        return func(*args, **(kwargs or {}))


SPARE_ELEMENTS = 50_000_000
"""What a network may hold beside its weights: tables, grids, work while it is made."""
UNNAMED = "equiformer_v2"
"""The architecture of files and recipes that name none."""


class ArchitectureEntry(NamedTuple):
    """An architecture: its choices, and the network that they make."""

    config: type[Architecture]
    network: type[Network]


ARCHITECTURES: Mapping[str, ArchitectureEntry] = {
    "equiformer_v2": ArchitectureEntry(EquiformerV2Config, EquiformerV2),
    "ace": ArchitectureEntry(AceConfig, Ace),
    "painn": ArchitectureEntry(PainnConfig, Painn),
    "molecular": ArchitectureEntry(MolecularConfig, Molecular),
}


def entry_of(options: Mapping[str, Any]) -> ArchitectureEntry:
    """Return the architecture that options ask for.

    Raises:
        ValueError: there is none of this name.
    """
    name = options.get("name", UNNAMED)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        expected = ", ".join(ARCHITECTURES)
        raise ValueError(f"name is {name!r}; expected one of {expected}")
    return ARCHITECTURES[name]


def architecture_from(options: Mapping[str, Any]) -> Architecture:
    """Return the choices that a file holds.

    Raises:
        TypeError: an option that the architecture does not have.
        ValueError: an unknown architecture, or a value outside its limits.
    """
    return entry_of(options).config(**options)


def build_network(config: Architecture) -> Network:
    """Return a new network with random weights."""
    return ARCHITECTURES[config.name].network(config)


def filled_network(
    config: Architecture, tensors: dict[str, Tensor], *, source: str
) -> Network:
    """Return the network with these weights.

    Raises:
        CheckpointError: Names or shapes disagree with the architecture, or a weight is
            not a finite number.
    """
    room = SPARE_ELEMENTS + 4 * sum(tensor.numel() for tensor in tensors.values())
    try:
        with ElementBudget(room):
            network = build_network(config)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
        raise CheckpointError(
            f"'{source}' describes an architecture that can not be built ({error}); "
            f"expected the options of '{config.name}'"
        ) from error
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    found = {name: tensor.shape for name, tensor in tensors.items()}
    if expected != found:
        raise CheckpointError(
            f"the weights in '{source}' do not fit their architecture: "
            f"{_difference(expected, found)}"
        )
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                f"the weights in '{source}' are broken: '{name}' holds NaN or "
                "infinity; take an earlier checkpoint of that training"
            )
    network.load_state_dict(tensors)
    return network


def _difference(expected: dict[str, torch.Size], found: dict[str, torch.Size]) -> str:
    parts = []
    if missing := [name for name in expected if name not in found]:
        parts.append(f"{len(missing)} missing, such as '{missing[0]}'")
    if unknown := [name for name in found if name not in expected]:
        parts.append(f"{len(unknown)} unknown, such as '{unknown[0]}'")
    shapes = [k for k, shape in expected.items() if found.get(k, shape) != shape]
    if shapes:
        first = shapes[0]
        parts.append(
            f"{len(shapes)} of another shape, such as '{first}': found "
            f"{tuple(found[first])}, expected {tuple(expected[first])}"
        )
    return "; ".join(parts)
