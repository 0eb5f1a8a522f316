"""Pools of candidates that reach over processes."""

import dataclasses

import pytest
import torch
from torch import Tensor

from crack_md.training.losses import DistillationStep, InstanceLoss, LossTerm, OneRank
from tests.training.factories import contrast, crack_term, random_graph, step_of

SIZES = ([5, 4], [6, 3, 2])


class Recorder(OneRank):
    """Writes down what a process would send."""

    def __init__(self) -> None:
        self.sent: list[Tensor] = []

    def gather(self, rows: Tensor) -> Tensor:
        self.sent.append(rows)
        return rows


class TwoRanks(OneRank):
    """One of two processes, which knows what both will send."""

    def __init__(self, rank: int, sent: list[list[Tensor]], n_items: float) -> None:
        self.rank, self.n_items = rank, n_items
        self.sent = iter(list(zip(*sent, strict=True)))

    def average(self, value: Tensor) -> Tensor:
        return value.new_tensor(self.n_items / 2)

    def gather(self, rows: Tensor) -> Tensor:
        parts = next(self.sent)
        self.starts = [0, len(parts[0])]
        return torch.cat(parts)

    def first_row(self, n_rows: int) -> int:
        return self.starts[self.rank]


def steps() -> tuple[DistillationStep, list[DistillationStep]]:
    """Return a batch, and the same batch on two processes."""
    graph = random_graph(SIZES[0] + SIZES[1])
    graph = graph._replace(atomic_numbers=graph.atomic_numbers % 2 + 28)
    whole = step_of(graph, seed=1)
    parts = []
    for structures in (graph.batch < 2, graph.batch >= 2):
        first = int(structures.nonzero()[0])
        part = graph._replace(
            positions=graph.positions[structures],
            atomic_numbers=graph.atomic_numbers[structures],
            batch=graph.batch[structures] - graph.batch[first],
            neighbors=graph.neighbors[structures] - first,
            cell_shift=graph.cell_shift[structures],
            mask=graph.mask[structures],
        )
        features = whole.features[0]
        both = [features.student[structures], features.teacher[structures]]
        parts.append(step_of(part, features=both))
    return whole, parts


@pytest.mark.parametrize(
    "term",
    [
        crack_term(negatives="global"),
        crack_term(negatives="global", same_elements=True),
        crack_term(negatives="global", pairs="directed", anchor="both"),
        InstanceLoss(contrast(negatives="global")),
        # every row draws all others, but for itself
        InstanceLoss(contrast(negatives="global", sample=20)),
        InstanceLoss(contrast(negatives="global", sample=20), same_elements=True),
    ],
)
def test_two_processes_contrast_as_one(term: LossTerm) -> None:
    whole, parts = steps()
    expected = term(whole).item()
    sent, counts = [], 0.0
    for part in parts:
        recorder = Recorder()
        term(dataclasses.replace(part, ranks=recorder))
        sent.append(recorder.sent)
        counts += sum(len(rows) for rows in recorder.sent[::3])
    found = [
        term(dataclasses.replace(part, ranks=TwoRanks(rank, sent, counts))).item()
        for rank, part in enumerate(parts)
    ]
    assert sum(found) / 2 == pytest.approx(expected, rel=1e-5)
