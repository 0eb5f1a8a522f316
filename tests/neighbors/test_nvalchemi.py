"""The search on a GPU against vesin; it runs on the CPU too, which is tested."""

import sys
from typing import Any

import ase
import numpy as np
import pytest
import torch

from crack_md.errors import MissingDependencyError
from crack_md.neighbors import (
    NeighborRule,
    NeighborSkin,
    SmoothNeighbors,
    StrictNeighbors,
    build_graph,
    candidates,
)
from crack_md.neighbors.search import pairs_on_device, pairs_within, should_search_on
from tests.neighbors.structures import STRUCTURES, random_structure, slab_with_oxygen

CPU = torch.device("cpu")


@pytest.fixture
def installed() -> None:
    pytest.importorskip("nvalchemiops")


def rows(*columns: np.ndarray | torch.Tensor) -> list[list[int]]:
    return sorted(np.column_stack([np.asarray(column) for column in columns]).tolist())


def assert_same_pairs(atoms: ase.Atoms, radius: float, device: torch.device) -> None:
    found = pairs_on_device(atoms, radius, device)
    assert {column.dtype for column in found} == {torch.int64}
    cpu = (column.cpu() for column in found)
    assert rows(*cpu) == rows(*pairs_within(atoms, radius))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("radius", [2.9, 5.1, 9.3])
def test_pairs_of_all_structures(name: str, radius: float) -> None:
    assert_same_pairs(STRUCTURES[name], radius, CPU)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("seed", range(30))
def test_pairs_of_random_structures(seed: int) -> None:
    generator = np.random.default_rng(seed)
    atoms = random_structure(generator)
    assert_same_pairs(atoms, generator.uniform(1.0, 8.0), CPU)
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])  # the other hand
    atoms.pbc = atoms.pbc[[1, 0, 2]]
    assert_same_pairs(atoms, generator.uniform(1.0, 8.0), CPU)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvalchemiops", "nvalchemiops.torch.neighbors"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependencyError, match=r"crack-md\[gpu\]"):
        pairs_on_device(slab_with_oxygen(), 5.0, CPU)
    assert not should_search_on(torch.device("cuda"), 10_000)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("device", "n_atoms", "expected"),
    [("cuda", 10_000, True), ("cuda", 46, False), ("cpu", 10_000, False)],
)
def test_only_large_structures_on_a_gpu_are_searched_there(
    device: str, n_atoms: int, expected: bool
) -> None:
    assert should_search_on(torch.device(device), n_atoms) is expected


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("rule", [StrictNeighbors(20), SmoothNeighbors(5.0)])
def test_the_skin_takes_its_candidates_from_either_search(
    rule: NeighborRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = []

    def search(*arguments: Any) -> Any:
        searched.append(arguments)
        return pairs_on_device(*arguments)

    monkeypatch.setattr(candidates, "should_search_on", lambda *_: True)
    monkeypatch.setattr(candidates, "pairs_on_device", search)
    for atoms in STRUCTURES.values():
        found = NeighborSkin(rule, skin=0.5)(atoms)
        for one, other in zip(found[:-1], build_graph(atoms, rule)[:-1], strict=True):
            assert torch.equal(one, other)
    assert len(searched) >= len(STRUCTURES)


gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@gpu
@pytest.mark.gpu
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("name", STRUCTURES)
def test_pairs_found_on_a_gpu(name: str) -> None:
    assert_same_pairs(STRUCTURES[name], 5.1, torch.device("cuda"))


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("rule", [StrictNeighbors(20), SmoothNeighbors(5.0)])
def test_tables_on_a_gpu_have_the_bits_of_those_on_the_host(
    rule: NeighborRule, size: int
) -> None:
    slab = slab_with_oxygen(rattle=0.05) * (size, size, 1)
    skin = NeighborSkin(rule, skin=0.5, device="cuda")
    generator = np.random.default_rng(0)
    for _ in range(20):
        slab.positions += generator.normal(scale=0.02, size=slab.positions.shape)
        slab.wrap()
        for one, other in zip(
            skin(slab)[:-1], build_graph(slab, rule)[:-1], strict=True
        ):
            assert torch.equal(one.cpu(), other)
    assert 1 <= skin.n_builds < 20
