"""The weighted sum, the shared head, and losses in float32 under autocast."""

from functools import partial

import pytest
import torch

from crack_md.neighbors import build_graph
from crack_md.training.frames import Frames
from crack_md.training.heads import FeatureHead
from crack_md.training.losses import EnergyLoss, NodeToNodeLoss, WeightedTerm
from crack_md.training.objective import Objective
from tests.factories import tiny_model
from tests.training.factories import CHANNELS, crack_term, labelled

MODEL = tiny_model(dtype=torch.float32)
FRAMES = Frames([labelled(n) for n in range(3)], partial(build_graph, rule=MODEL.rule))
BATCH = FRAMES.batch(torch.arange(3))


def objective(**options: object) -> Objective:
    torch.manual_seed(0)
    terms = [
        WeightedTerm(crack_term(), 10.0),
        WeightedTerm(NodeToNodeLoss(), 0.5),
        WeightedTerm(EnergyLoss("task", 1.0, False), 0.0),
    ]
    return Objective(MODEL, terms, head=FeatureHead(8, CHANNELS), **options)


def test_total_is_the_weighted_sum() -> None:
    report = objective()(BATCH)
    parts = report.parts
    assert set(parts) == {"crack", "n2n", "task_energy"}
    expected = 10 * parts["crack"] + 0.5 * parts["n2n"]
    assert report.total.item() == pytest.approx(expected.item(), rel=1e-6)


def test_head_and_student_learn_from_features() -> None:
    total = objective()
    MODEL.train()
    total(BATCH).total.backward()
    MODEL.eval()
    assert total.head.linear.weight.grad.abs().sum() > 0
    assert MODEL.network.sphere_embedding.weight.grad.abs().sum() > 0
    MODEL.zero_grad()


def test_head_normalizes_the_teacher_only() -> None:
    mean = torch.arange(4.0)
    head = FeatureHead(4, 4, mean=mean, std=2.0)
    student, teacher = torch.ones(1, 4), torch.tensor([[2.0, 3, 4, 5]])
    features = head(student, teacher)
    assert torch.equal(features.teacher, torch.ones(1, 4))
    assert torch.allclose(features.student, head.linear.weight.sum(dim=1)[None])
    assert head.linear.bias is None


def test_losses_stay_float32_under_autocast() -> None:
    seen = []

    class Probe:
        name = "probe"

        def __call__(self, step):  # type: ignore[no-untyped-def]
            product = step.features[0].student @ step.features[0].teacher.T
            seen.append((step.features[0].student.dtype, product.dtype))
            return product.sum()

    total = objective(autocast_dtype=torch.bfloat16)
    total.terms = (WeightedTerm(Probe(), 1.0),)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total(BATCH)
    assert seen == [(torch.float32, torch.float32)]
