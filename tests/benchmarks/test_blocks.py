"""The profile counts what a block does."""

import torch

from benchmarks.blocks import REST, profile, table
from benchmarks.costs import count, machine_rates
from tests.factories import graph_of, oxygen_slab, tiny_model


def test_products_of_a_convolution_are_counted_exactly() -> None:
    model = tiny_model(dtype=torch.float32)
    graph = graph_of(model, oxygen_slab())
    with torch.no_grad():
        costs = profile(model, lambda: model.network(graph), repeats=2)

    n_edges = int(graph.mask.sum())
    attentions = [block.ga for block in model.network.blocks]
    expected = sum(
        2 * n_edges * weight.numel() * (1 if weight is conv.fc_m0.weight else 2)
        for ga in attentions
        for conv in [ga.so2_conv_2]
        for weight in [conv.fc_m0.weight, *(c.fc.weight for c in conv.so2_m_conv)]
    )
    assert costs["so2_conv_2"].flops == expected
    assert costs[REST].bytes > 0
    assert count(model, graph)[0] > costs["so2_conv_2"].flops
    text = table(costs, *machine_rates(model.device, torch.float32))
    assert text.count("\n") == len(costs) + 2
    assert "| all |" in text
