"""The profile counts what a block does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import blocks
from benchmarks.blocks import GRADIENT, ROTATIONS, profile, table
from benchmarks.costs import Cost, Machine, count
from crack_md.models.checkpoint import save_model
from crack_md.models.equiformer.edges import EdgeTable
from tests.factories import graph_of, oxygen_slab, tiny_model

MACHINE = Machine(flops_per_s=1e10, rounded_flops_per_s=1e11, bytes_per_s=1e9)


def profiled(**changes: Any) -> tuple[dict[str, Cost], int, int]:
    """Return the costs of a tiny model, and its numbers of atoms and edges."""
    model = tiny_model(dtype=torch.float32, **changes)
    graph = graph_of(model, oxygen_slab())
    with torch.no_grad():
        costs = profile(model, lambda: model(graph), repeats=2)
    assert sum(cost.flops for cost in costs.values()) == count(model, graph)[0]
    assert min(cost.bytes for cost in costs.values()) > 0
    return costs, graph.n_atoms, int(graph.mask.sum())


def test_products_of_a_direct_model_are_counted_exactly() -> None:
    """Two blocks and the force head, lmax 2, 9 coefficients, 8 channels everywhere.

    An SO(2) convolution of n channels to n has (3n)² weights for m = 0, 2 (2n)² for
    each of the two rows of m = 1, 2 n² for m = 2. The head takes l = 1 alone out of it.
    """
    full = {"neighbors": "strict", "forces": "direct", "cutoff": 6.0}
    costs, n_atoms, n_edges = profiled(**full)
    assert n_edges == 8 * n_atoms
    whole = 24**2 + 2 * 2 * 16**2 + 2 * 2 * 8**2
    head = 8 * 24 + 2 * 16 * 16
    assert costs["so2_conv_2"].flops == 2 * n_edges * (2 * whole + head)
    # there twice (sender and receiver), back once; the last time as vectors
    turn = 9 * 9 * 8
    there_and_back = 3 * 2 * turn + 2 * turn + 3 * 3 * 8
    degree = turn
    assert costs[ROTATIONS].flops == 2 * n_edges * (there_and_back + degree)
    assert costs["energy_block"].flops == 2 * n_atoms * (8 * 8 + 8)
    assert GRADIENT not in costs


def test_gradients_have_a_row_of_their_own() -> None:
    costs, _, _ = profiled()
    forward = sum(cost.flops for name, cost in costs.items() if name != GRADIENT)
    assert 0.5 * forward < costs[GRADIENT].flops < 2.5 * forward
    assert EdgeTable.rotate.__name__ == "rotate", "nothing stays watched"


def test_shares_are_those_of_the_rates_of_each_precision() -> None:
    cost = Cost(flops=3e9, rounded_flops=2e9, bytes=5e8, seconds=2.0)
    assert MACHINE.share_of_products(cost) == pytest.approx((0.1 + 0.02) / 2)
    assert MACHINE.share_of_bandwidth(cost) == 0.25
    text = table({"ffn": cost, "norm": Cost(bytes=5e8, seconds=2.0)}, MACHINE)
    assert text.splitlines()[2:] == [
        "| ffn | 3.00 | 0.50 | 2000.0 | 50 % | 6 % | 25 % |",
        "| norm | 0.00 | 0.50 | 2000.0 | 50 % | 0 % | 25 % |",
        "| all | 3.00 | 1.00 | 4000.0 | 100 % | 3 % | 25 % |",
    ]


def test_tables_of_two_precisions_go_into_a_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Machine, "measured", lambda _: MACHINE)
    student, page = tmp_path / "student.pt", tmp_path / "page.md"
    save_model(tiny_model(dtype=torch.float32), student)
    page.write_text("<!-- blocks: begin -->\n<!-- blocks: end -->\nthe rest\n")
    words = ["--model", student, "--atoms", 6, "--repeats", 1, "--threads", 1]
    words += ["--dtype", "float32", "bfloat16", "--write", page]
    words += ["--json", tmp_path / "blocks.json"]
    blocks.main([str(word) for word in words])
    text = page.read_text()
    assert text.index("#### float32") < text.index("#### bfloat16")
    assert "10 GFLOP/s float32, 100 bfloat16 and 1.0 GB/s" in text
    assert text.endswith("<!-- blocks: end -->\nthe rest\n")
    costs = json.loads((tmp_path / "blocks.json").read_text())["costs"]
    exact, rounded = costs["float32"], costs["bfloat16"]
    assert exact["so2_conv_1"]["rounded_flops"] == 0
    assert 0 < rounded["so2_conv_1"]["rounded_flops"] == exact["so2_conv_1"]["flops"]
    assert rounded["rad_func"]["rounded_flops"] == 0
