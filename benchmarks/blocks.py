"""Where the time of a forward call goes: operations, bytes and time of every block.

    python benchmarks/blocks.py --model 22M --atoms 46

Operations are those of matrix products; bytes are what all operations read and write,
views left out, so what a cache serves is counted too. Both rates stand beside those
that the machine reaches with a large product and a large copy, measured in the same
run. 22M is the published student's size with random weights.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from ase import Atoms
from ase.build import add_adsorbate, fcc111
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from crack_md.models.checkpoint import load_model
from crack_md.models.equiformer_config import EquiformerV2Config
from crack_md.models.equiformer_v2 import EquiformerV2
from crack_md.models.force_field import EnergyScale, ForceField, ModelMetadata
from crack_md.models.precision import with_products_in
from crack_md.neighbors import build_graph

SLABS = {46: (3, 3, 5), 81: (4, 5, 4)}
BLOCKS = (
    "edge_degree_embedding",
    "norm",
    "norm_1",
    "norm_2",
    "rad_func",
    "so2_conv_1",
    "activation",
    "so2_conv_2",
    "proj",
    "ffn",
    "delta",
    "energy_block",
)
"""Modules with a row of their own, wherever they are; the rest of a network is one."""
REST = "rotations, graph, sums"


@dataclass
class Cost:
    """What a block took."""

    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0


class Counter(TorchDispatchMode):
    """Adds up operations and bytes for the block that is at work."""

    def __init__(self, costs: dict[str, Cost], stack: list[str]) -> None:
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
            cost.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        if not func.is_view:
            cost.bytes += sum(
                leaf.numel() * leaf.element_size()
                for leaf in tree_leaves((args, kwargs, out))
                if isinstance(leaf, Tensor)
            )
        return out


@contextmanager
def watched(
    model: nn.Module, stack: list[str], lap: Callable[[], None]
) -> Iterator[None]:
    """Keep the name of the block at work on top of a stack; call ``lap`` at changes."""

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            lap()
            stack.append(name)

        return hook

    def leave(*_: object) -> None:
        lap()
        stack.pop()

    handles = []
    for path, module in model.named_modules():
        name = path.rpartition(".")[2]
        if name in BLOCKS:
            handles.append(module.register_forward_pre_hook(enter(name)))
            handles.append(module.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def profile(
    model: ForceField, call: Callable[[], object], repeats: int
) -> dict[str, Cost]:
    """Return the cost of every block in one call, its time as median."""
    names = [*BLOCKS, REST]
    stack, costs = [REST], {name: Cost() for name in names}
    with watched(model, stack, lambda: None), Counter(costs, stack):
        call()
    runs: list[dict[str, float]] = []
    last = time.perf_counter()

    def lap() -> None:
        nonlocal last
        synchronize(model)
        now = time.perf_counter()
        runs[-1][stack[-1]] += now - last
        last = now

    with watched(model, stack, lap):
        for _ in range(repeats):
            runs.append(dict.fromkeys(names, 0.0))
            last = time.perf_counter()
            call()
            lap()
    for name in names:
        costs[name].seconds = median(run[name] for run in runs)
    return {name: cost for name, cost in costs.items() if cost.bytes}


def synchronize(model: ForceField) -> None:
    """Wait for a GPU, so that time falls to the block that caused it."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def machine_rates(model: ForceField, dtype: torch.dtype) -> tuple[float, float]:
    """Return operations/s of a large product and bytes/s of a large copy."""
    left, right = torch.randn(2, 2048, 2048, device=model.device).to(dtype).unbind()
    large = torch.randn(1 << 26, device=model.device)
    target = torch.empty_like(large)
    product = quickest(model, lambda: left @ right)
    copy = quickest(model, lambda: target.copy_(large))
    return 2 * 2048**3 / product, 2 * large.numel() * large.element_size() / copy


def quickest(model: ForceField, call: Callable[[], object]) -> float:
    """Return the shortest of several times, in s."""
    times = []
    for _ in range(5):
        synchronize(model)
        begin = time.perf_counter()
        call()
        synchronize(model)
        times.append(time.perf_counter() - begin)
    return min(times)


def slab(n_atoms: int) -> Atoms:
    """Return O on a rattled Pt(111) slab of about so many atoms."""
    size = SLABS.get(n_atoms) or (round((n_atoms / 5) ** 0.5),) * 2 + (5,)
    atoms = fcc111("Pt", size, a=3.97, vacuum=7.0, periodic=True)
    add_adsorbate(atoms, "O", 1.3, "fcc")
    atoms.rattle(0.05, seed=0)
    return atoms


def load(name: str) -> ForceField:
    """Return a model by name or file, or one of the published student's size."""
    if name != "22M":
        return load_model(name).eval().requires_grad_(requires_grad=False)
    torch.manual_seed(0)
    network = EquiformerV2(EquiformerV2Config(num_layers=2, delta=True))
    metadata = ModelMetadata("total", (8, 78))
    model = ForceField(network, EnergyScale(), metadata).eval()
    return model.requires_grad_(requires_grad=False)


def table(costs: dict[str, Cost], gemm: float, bandwidth: float) -> str:
    """Return the costs as Markdown, dearest first."""
    lines = [
        "| block | GFLOP | GB | ms | of all | of GEMM rate | of bandwidth |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    total = Cost(
        sum(cost.flops for cost in costs.values()),
        sum(cost.bytes for cost in costs.values()),
        sum(cost.seconds for cost in costs.values()),
    )
    rows: Sequence[tuple[str, Cost]] = sorted(
        costs.items(), key=lambda pair: -pair[1].seconds
    )
    for name, cost in [*rows, ("all", total)]:
        seconds = max(cost.seconds, 1e-9)
        lines.append(
            f"| {name} | {cost.flops / 1e9:.2f} | {cost.bytes / 1e9:.2f} "
            f"| {1e3 * cost.seconds:.1f} | {100 * cost.seconds / total.seconds:.0f} % "
            f"| {100 * cost.flops / seconds / gemm:.0f} % "
            f"| {100 * cost.bytes / seconds / bandwidth:.0f} % |"
        )
    return "\n".join(lines)


def main() -> None:
    """Profile, print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="22M", help="22M, a name or a file")
    parser.add_argument("--atoms", type=int, default=46)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, help="JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = load(options.model).to(options.device)
    dtype = getattr(torch, options.dtype)
    gemm, bandwidth = machine_rates(model, dtype)
    if options.dtype == "bfloat16":
        model = with_products_in(model, dtype)
    graph = build_graph(slab(options.atoms), model.rule, device=options.device)
    with torch.no_grad():
        costs = profile(model, lambda: model(graph), options.repeats)
    print(
        f"{options.model}, {graph.n_atoms} atoms, {options.dtype}, {options.device}, "
        f"{options.threads} threads, torch {torch.__version__}; the machine: "
        f"{gemm / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s\n"
    )
    print(table(costs, gemm, bandwidth))
    if options.out:
        content = {name: vars(cost) for name, cost in costs.items()}
        content["machine"] = {"flops_per_s": gemm, "bytes_per_s": bandwidth}
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
