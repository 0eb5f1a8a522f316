"""Where the time of a forward call goes: operations, bytes and time of every block.

    python benchmarks/blocks.py --model 22M --atoms 46
    python benchmarks/blocks.py --dtype float32 bfloat16 --write docs/performance.md

Both rates stand beside those that the machine reaches with a large product and a large
copy, measured in the same run (see costs.py). 22M is the published student's size with
random weights.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.costs import Cost, Counter, Machine, synchronize
from benchmarks.models import load_network
from benchmarks.results import processor, write_json
from benchmarks.speed_table import write_section
from crack_md.bench.speed import platinum_slab
from crack_md.errors import CrackError
from crack_md.models.equiformer.edges import EdgeTable
from crack_md.models.force_field import ForceField, with_products_in
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
"""Modules with a row of their own, wherever they are."""
CALLS = ("forward", "vectors", "invariants")
"""How modules are called: for all of their output, or for a part of it."""
ROTATIONS = "rotations"
TABLE = "distances, Wigner matrices"
GRADIENT = "gradient"
"""All that follows the network where forces are one; parts of the network that are
evaluated again on the way count where they belong."""
REST = "attention weights, sums"
NAMES = (*BLOCKS, ROTATIONS, TABLE, GRADIENT, REST)


@contextmanager
def watched(
    model: ForceField, stack: list[str], lap: Callable[[], None]
) -> Iterator[None]:
    """Keep the name of the block at work on top of a stack; call ``lap`` at changes."""

    def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            lap()
            stack.append(name)
            try:
                return function(*args, **kwargs)
            finally:
                lap()
                stack.pop()

        return call

    network = model.network.forward
    after = GRADIENT if model.forces == "gradient" else REST

    def evaluate(*args: Any, **kwargs: Any) -> Any:
        stack[0] = REST
        out = network(*args, **kwargs)
        lap()
        stack[0] = after
        return out

    with ExitStack() as patches:
        for owner, method, name in _parts(model):
            call = named(getattr(owner, method), name)
            patches.enter_context(patch.object(owner, method, call))
        patches.enter_context(patch.object(model.network, "forward", evaluate))
        yield


def _parts(model: ForceField) -> Iterator[tuple[Any, str, str]]:
    """Yield what is called, how, and the row that it belongs to."""
    for path, module in model.network.named_modules():
        name = path.rpartition(".")[2]
        if name in BLOCKS:
            for method in CALLS:
                if hasattr(module, method):
                    yield module, method, name
    for method in ("rotate", "rotate_back", "rotate_back_vectors"):
        yield EdgeTable, method, ROTATIONS
    yield model.network, "edge_table", TABLE


def profile(
    model: ForceField, call: Callable[[], object], repeats: int
) -> dict[str, Cost]:
    """Return the cost of every block in one call, its time as median."""
    stack, costs = [REST], {name: Cost() for name in NAMES}
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
            runs.append(dict.fromkeys(NAMES, 0.0))
            stack[0] = REST
            last = time.perf_counter()
            call()
            lap()
    for name in NAMES:
        costs[name].seconds = median(run[name] for run in runs)
    return {name: cost for name, cost in costs.items() if cost.bytes}


def table(costs: dict[str, Cost], machine: Machine) -> str:
    """Return the costs as Markdown, dearest first."""
    lines = [
        "| block | GFLOP | GB | ms | of all | of GEMM rate | of bandwidth |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    total = Cost(
        *(
            sum(getattr(cost, field) for cost in costs.values())
            for field in Cost.__dataclass_fields__
        )
    )
    rows = sorted(costs.items(), key=lambda pair: -pair[1].seconds)
    for name, cost in [*rows, ("all", total)]:
        lines.append(
            f"| {name} | {cost.flops / 1e9:.2f} | {cost.bytes / 1e9:.2f} "
            f"| {1e3 * cost.seconds:.1f} | {100 * cost.seconds / total.seconds:.0f} % "
            f"| {100 * machine.share_of_products(cost):.0f} % "
            f"| {100 * machine.share_of_bandwidth(cost):.0f} % |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Profile in every precision, print the tables, and write them where asked."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    model = load_network(options.model).to(options.device)
    machine = Machine.measured(model.device)
    graph = build_graph(platinum_slab(options.atoms), model.rule, device=options.device)
    found = {}
    for dtype in options.dtype:
        one = with_products_in(model, torch.bfloat16) if dtype == "bfloat16" else model
        with torch.no_grad():
            found[dtype] = profile(one, lambda one=one: one(graph), options.repeats)
    gpu = torch.cuda.get_device_name() if model.device.type == "cuda" else ""
    head = (
        f"{options.model}, {graph.n_atoms} atoms, {gpu or processor()}, "
        f"{options.threads} threads, torch {torch.__version__}, medians of "
        f"{options.repeats} calls. {machine}"
    )
    tables = [f"#### {dtype}\n\n{table(found[dtype], machine)}" for dtype in found]
    text = "\n\n".join([head, *tables])
    print(text)
    if options.json:
        costs = {
            dtype: {name: asdict(cost) for name, cost in one.items()}
            for dtype, one in found.items()
        }
        write_json({"machine": asdict(machine), "costs": costs}, options.json)
    if options.write:
        try:
            write_section(options.write, text, name="blocks")
        except CrackError as error:
            raise SystemExit(f"error: {error}") from error


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--model", default="22M", help="22M, a name or a file")
    add("--atoms", type=int, default=46)
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default="cpu")
    precisions = ["float32", "bfloat16"]
    add("--dtype", nargs="+", choices=precisions, default=["float32"])
    add("--repeats", type=int, default=10)
    add("--json", type=Path, help="file for all that was measured")
    add("--write", type=Path, help="document to put the tables into")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
