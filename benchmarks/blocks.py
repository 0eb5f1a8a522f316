"""Where the time of a forward call goes: operations, bytes and time of every block.

    python benchmarks/blocks.py --model 22M --atoms 46

Both rates stand beside those that the machine reaches with a large product and a large
copy, measured in the same run (see costs.py). 22M is the published student's size with
random weights.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import torch
from torch import nn

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.costs import Cost, Counter, machine_rates, synchronize
from benchmarks.models import load_network
from crack_md.calculators.speed import platinum_slab
from crack_md.models.force_field import ForceField
from crack_md.models.precision import with_products_in
from crack_md.neighbors import build_graph

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
        synchronize(model.device)
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
    model = load_network(options.model).to(options.device)
    dtype = getattr(torch, options.dtype)
    gemm, bandwidth = machine_rates(model.device, dtype)
    if options.dtype == "bfloat16":
        model = with_products_in(model, dtype)
    graph = build_graph(platinum_slab(options.atoms), model.rule, device=options.device)
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
