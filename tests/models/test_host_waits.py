"""Nothing in a call of a model makes the host wait for a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crack_md.graph import AtomGraph, graph_to, padded_graph
from crack_md.models.equiformer import equiformer_v2
from crack_md.models.force_field import ForceField
from tests.factories import graph_of, oxygen_slab, tiny_model, water

KINDS = [("smooth", "gradient"), ("strict", "direct")]
READS = {
    "aten::_local_scalar_dense",
    "aten::equal",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::nonzero",
    "aten::repeat_interleave",
    "aten::_unique2",
}
"""What returns a number, or a shape that depends on numbers."""
METHODS = {"cpu", "numpy", "tolist"}
"""What reads numbers past the dispatcher."""
COPIES = {"aten::lift_fresh"}
"""What brings Python's numbers into a tensor: on a GPU a copy that is waited for."""


class _Operations(TorchDispatchMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        by_mask = name.startswith("aten::index") and any(
            isinstance(leaf, Tensor) and leaf.dtype == torch.bool
            for leaf in tree_leaves(args[1])
        )
        if name in READS | COPIES or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") in METHODS:
            self.found.append(func.__name__)
        return func(*args, **(kwargs or {}))


@contextmanager
def waits() -> Iterator[list[str]]:
    """Keep what would make the host wait for a GPU."""
    found: list[str] = []
    with _Operations(found), _Methods(found):
        yield found


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: (x > 0).nonzero(),
        lambda x: x.new_tensor([1.0]),
        lambda x: bool((x > 0).all()),
        lambda x: x.repeat_interleave(x.long()),
        Tensor.tolist,
        Tensor.cpu,
        Tensor.numpy,
    ],
)
def test_what_waits_is_found(wait: Any) -> None:
    with waits() as found:
        wait(torch.ones(3))
    assert found


def called(model: ForceField, graph: AtomGraph) -> None:
    stress = model.forces == "gradient"
    with torch.no_grad():
        model(graph, stress=stress)


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(("rule", "forces"), KINDS)
def test_a_call_reads_nothing_back(
    rule: str, forces: str, in_parts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU is given it: no slot is left out, which would take reading the mask."""
    model = tiny_model(neighbors=rule, forces=forces)
    graph = graph_of(model, oxygen_slab(), water())
    edges_of = model.network.edges

    def whole(graph: AtomGraph, *, compact: Any = None) -> Any:
        return edges_of(graph, compact=False)

    monkeypatch.setattr(model.network, "edges", whole)
    if in_parts:
        monkeypatch.setitem(equiformer_v2.CHUNK_BYTES, "cpu", 1)
        monkeypatch.setattr(equiformer_v2, "WHOLE_BYTES", 1)
    called(model, graph)  # constants are brought there once
    with waits() as found:
        called(model, graph)
    assert found == []


def test_padding_reads_nothing_back() -> None:
    graph = graph_of(tiny_model(), oxygen_slab(), water())
    with waits() as found:
        padded_graph(graph, 24, graph.mask.shape[1] + 8, n_structures=24)
    assert found == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize(("rule", "forces"), KINDS)
def test_a_call_on_a_gpu_does_not_wait(rule: str, forces: str) -> None:
    model = tiny_model(neighbors=rule, forces=forces, dtype=torch.float32).cuda()
    graph = graph_to(graph_of(model, oxygen_slab(), water()), device="cuda")
    called(model, graph)  # constants are brought there once
    torch.cuda.set_sync_debug_mode("error")
    try:
        called(model, graph)
    finally:
        torch.cuda.set_sync_debug_mode("default")
