"""Sharing batches among devices, with two calculators on one CPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from crack_md.calculators import CrackCalculator, Langevin, Replicas
from crack_md.calculators.batched import SeveralDevices, shared_alike
from crack_md.errors import ConfigError
from tests.factories import oxygen_slab, tiny_model, water


class Counting:
    """A calculator that tells the sizes it was given."""

    implemented_properties = ["energy"]  # noqa: RUF012

    def __init__(self, *, breaks: bool = False) -> None:
        self.seen: list[int] = []
        self.breaks = breaks

    def calculate_many(
        self, structures: Sequence[Atoms], *_: Any, **__: Any
    ) -> list[dict[str, Any]]:
        if self.breaks:
            raise MemoryError("no room")
        self.seen += [len(atoms) for atoms in structures]
        return [{"energy": float(len(atoms))} for atoms in structures]


@pytest.mark.parametrize(
    ("sizes", "n_shares", "parts"),
    [
        ([1, 1, 1, 1], 2, [[0, 1], [2, 3]]),
        ([3, 1, 1, 1], 2, [[0], [1, 2, 3]]),
        ([1, 1, 1, 3], 2, [[0, 1, 2], [3]]),
        ([5], 3, [[], [0], []]),
        ([], 2, [[], []]),
        ([2, 2, 2], 1, [[0, 1, 2]]),
    ],
)
def test_shares_hold_about_as_many_atoms(
    sizes: list[int], n_shares: int, parts: list[list[int]]
) -> None:
    places = list(range(len(sizes)))
    assert [places[share] for share in shared_alike(sizes, n_shares)] == parts


def test_answers_come_in_the_order_of_the_structures() -> None:
    one, other = Counting(), Counting()
    structures = [Atoms(f"H{n}") for n in (1, 2, 3, 4, 5, 6)]
    found = SeveralDevices([one, other]).calculate_many(structures)
    assert [results["energy"] for results in found] == [1, 2, 3, 4, 5, 6]
    assert (one.seen, other.seen) == ([1, 2, 3, 4], [5, 6])


def test_models_agree_with_one_alone_and_errors_stay_apart() -> None:
    model = tiny_model()
    calculators = [CrackCalculator(model, dtype="float64") for _ in range(2)]
    structures = [oxygen_slab(seed=1), Atoms("Xe"), water(), oxygen_slab(seed=2)]
    found = SeveralDevices(calculators).calculate_many(structures)
    alone = calculators[0].calculate_many(structures)
    assert isinstance(found[1], Exception)
    for place in (0, 2, 3):
        np.testing.assert_allclose(
            found[place]["forces"], alone[place]["forces"], atol=1e-10
        )


def test_replicas_move_as_they_do_on_one_device() -> None:
    model = tiny_model()
    calculators = [CrackCalculator(model, dtype="float64") for _ in range(2)]
    dynamics = Langevin(temperature_K=300.0, timestep_fs=0.5)
    starts = [oxygen_slab(seed=seed) for seed in range(3)]
    both = Replicas(starts, SeveralDevices(calculators), dynamics, seeds=5)
    alone = Replicas(starts, calculators[0], dynamics, seeds=5)
    for replicas in (both, alone):
        replicas.run(5)
    np.testing.assert_allclose(both.state.positions, alone.state.positions, atol=1e-9)


def test_what_breaks_one_device_is_raised() -> None:
    with pytest.raises(MemoryError, match="no room"):
        SeveralDevices([Counting(), Counting(breaks=True)]).calculate_many([water()])


def test_calculators_must_be_of_one_model() -> None:
    with pytest.raises(ConfigError, match="an empty list"):
        SeveralDevices([])
    one, other = Counting(), Counting()
    one.metadata = type("M", (), {"sha256": "a"})()  # type: ignore[attr-defined]
    other.metadata = type("M", (), {"sha256": "b"})()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="different models"):
        SeveralDevices([one, other])
