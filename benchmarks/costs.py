"""Operations and bytes of a call, and what the machine reaches of either.

Operations are those of matrix products, forward and backward; bytes are what all
operations read and write, views left out, so what a cache serves is counted too.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from crack_md.graph import AtomGraph
from crack_md.models.force_field import ForceField


@dataclass
class Cost:
    """What a block took."""

    flops: float = 0.0
    rounded_flops: float = 0.0
    """Of these, in products of bfloat16 numbers."""
    bytes: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Machine:
    """What the machine reaches with large products and a large copy."""

    flops_per_s: float
    """Of float32 numbers."""
    rounded_flops_per_s: float
    """Of bfloat16 numbers."""
    bytes_per_s: float

    @classmethod
    def measured(cls, device: torch.device) -> "Machine":
        """Return the rates of a device."""
        exact, one = machine_rates(device, torch.float32)
        rounded, other = machine_rates(device, torch.bfloat16)
        return cls(exact, rounded, max(one, other))

    def share_of_products(self, cost: Cost) -> float:
        """Return the least time for the products of a block, over its time."""
        exact = (cost.flops - cost.rounded_flops) / self.flops_per_s
        rounded = cost.rounded_flops / self.rounded_flops_per_s
        return (exact + rounded) / max(cost.seconds, 1e-9)

    def share_of_bandwidth(self, cost: Cost) -> float:
        """Return the time for its bytes at the rate of a copy, over its time."""
        return cost.bytes / self.bytes_per_s / max(cost.seconds, 1e-9)

    def __str__(self) -> str:
        """Return a sentence."""
        return (
            f"The machine reaches {self.flops_per_s / 1e9:,.0f} GFLOP/s float32, "
            f"{self.rounded_flops_per_s / 1e9:,.0f} bfloat16 and "
            f"{self.bytes_per_s / 1e9:,.1f} GB/s."
        )


class Counter(TorchDispatchMode):
    """Adds up operations and bytes for the block that is at work.

    Args:
        costs: By name of the block.
        stack: Names of the blocks at work, the innermost last.
    """

    def __init__(self, costs: dict[str, Cost], stack: Sequence[str]) -> None:
        super().__init__()
        self.costs, self.stack = costs, stack

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count it."""
        out = func(*args, **(kwargs or {}))
        cost = self.costs[self.stack[-1]]
        packet = func._overloadpacket
        if packet in flop_registry:
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out)
            cost.flops += flops
            if out.dtype == torch.bfloat16:
                cost.rounded_flops += flops
        if not func.is_view:
            cost.bytes += sum(
                leaf.numel() * leaf.element_size()
                for leaf in tree_leaves((args, kwargs, out))
                if isinstance(leaf, Tensor)
            )
        return out


def count(model: ForceField, graph: AtomGraph) -> tuple[float, float]:
    """Return operations and bytes of one evaluation of the uncompiled model."""
    costs = {"all": Cost()}
    with torch.no_grad(), Counter(costs, ["all"]):
        model(graph)
    return costs["all"].flops, costs["all"].bytes


def machine_rates(device: torch.device, dtype: torch.dtype) -> tuple[float, float]:
    """Return operations/s of a large product and bytes/s of a large copy."""
    size = 8192 if device.type == "cuda" else 2048
    left, right = torch.randn(2, size, size, device=device).to(dtype).unbind()
    large = torch.randn(1 << 26, device=device)
    target = torch.empty_like(large)
    product = quickest(device, lambda: left @ right)
    copy = quickest(device, lambda: target.copy_(large))
    return 2 * size**3 / product, 2 * large.numel() * large.element_size() / copy


def quickest(device: torch.device, call: Callable[[], object]) -> float:
    """Return the shortest of several times, in s."""
    times = []
    for _ in range(5):
        synchronize(device)
        begin = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - begin)
    return min(times)


def synchronize(device: torch.device) -> None:
    """Wait for a GPU, so that time falls to the code that caused it."""
    if device.type == "cuda":
        torch.cuda.synchronize()
