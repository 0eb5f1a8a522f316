"""Calculators that take many structures at once, on one device or on several.

Nothing here knows PyTorch: workflows may use it, with any ASE calculator.
"""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from crack_md.errors import ConfigError

Results = dict[str, Any]
"""What ASE's calculators keep: properties of one structure by their name in ASE."""
ALL_PROPERTIES = ("energy", "free_energy", "forces", "stress")


class Trajectory:
    """Names a structure that moves, call after call, among those of a batch.

    Its neighbor lists may be kept as long as this object is.
    """


@runtime_checkable
class BatchCalculator(Protocol):
    """Evaluates many structures in one call; `CrackCalculator` does."""

    implemented_properties: list[str]

    def calculate_many(
        self,
        structures: Sequence[Atoms],
        properties: Collection[str] = ALL_PROPERTIES,
        *,
        trajectories: Sequence[Trajectory] | None = None,
    ) -> list[Results | Exception]:
        """Return the results of every structure, or the error that it alone causes."""
        ...


def calculate_each(
    structures: Sequence[Atoms],
    calculator: BatchCalculator | BaseCalculator,
    properties: Collection[str],
    *,
    trajectories: Sequence[Trajectory] | None = None,
) -> list[Results | Exception]:
    """Return the properties of every structure, or the error that it alone causes.

    Any other calculator is asked for one structure after the other.
    """
    if isinstance(calculator, BatchCalculator):
        return calculator.calculate_many(
            structures, properties, trajectories=trajectories
        )
    found: list[Results | Exception] = []
    for atoms in structures:
        try:
            found.append(
                {name: calculator.get_property(name, atoms) for name in properties}
            )
        except Exception as error:  # whatever it is, it is this structure's alone
            found.append(error)
    return found


class SeveralDevices:
    """Shares every batch among calculators of one model, such as one for each GPU.

    For `Replicas`, `run_together` and wherever else a calculator takes many structures:

        SeveralDevices([CrackCalculator(device=f"cuda:{i}") for i in range(4)])

    Each calculator has a thread of its own and takes neighbors in the list, about as
    many atoms as the others. The same list is always shared alike, so that neighbor
    lists of trajectories are kept where they are.

    Args:
        calculators: of the same model, on different devices.

    Raises:
        ConfigError: no calculator, or calculators of different models.
    """

    def __init__(self, calculators: Sequence[BatchCalculator]) -> None:
        if not calculators:
            raise ConfigError("an empty list of calculators; expected one per device")
        self.calculators = list(calculators)
        hashes = {_sha256(one) for one in calculators}
        if len(hashes) > 1:
            raise ConfigError(
                "calculators of different models; expected the same one on each device"
            )
        own = [one.implemented_properties for one in calculators]
        self.implemented_properties = [
            name for name in own[0] if all(name in other for other in own[1:])
        ]
        self._threads = ThreadPoolExecutor(len(self.calculators))

    def calculate_many(
        self,
        structures: Sequence[Atoms],
        properties: Collection[str] = ALL_PROPERTIES,
        *,
        trajectories: Sequence[Trajectory] | None = None,
    ) -> list[Results | Exception]:
        """Return the results of every structure, or the error that it alone causes.

        Args:
            structures: of any sizes, in any order.
            properties: what is wanted.
            trajectories: one for each structure that moves on in later calls.

        Raises:
            Exception: what a calculator raises, when all of them have ended.
        """
        shares = shared_alike([len(one) for one in structures], len(self.calculators))
        calls = [
            self._threads.submit(
                calculator.calculate_many,
                structures[share],
                properties,
                trajectories=None if trajectories is None else trajectories[share],
            )
            for calculator, share in zip(self.calculators, shares, strict=True)
        ]
        failures = [error for call in calls if (error := call.exception()) is not None]
        if failures:
            raise failures[0]
        return [results for call in calls for results in call.result()]


def shared_alike(sizes: Sequence[int], n_shares: int) -> list[slice]:
    """Return parts of a list that hold about as many atoms each.

    A structure goes where its middle atom lies, so that no share misses the mean by
    more than the largest structure has atoms.

    Args:
        sizes: atoms of each structure.
        n_shares: how many parts; some are empty where there are fewer structures.
    """
    ends = np.cumsum(sizes)
    middles = ends - np.array(sizes) / 2
    total = ends[-1] if len(sizes) else 0
    cuts = np.searchsorted(middles, total * np.arange(1, n_shares) / n_shares)
    borders = [0, *cuts.tolist(), len(sizes)]
    return [slice(first, last) for first, last in pairwise(borders)]


def _sha256(calculator: BatchCalculator) -> str | None:
    return getattr(getattr(calculator, "metadata", None), "sha256", None)
