"""The weighted sum, the shared head, and losses in float32 under autocast."""

import dataclasses

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from crack_md.data.dataset import LabelledStructure
from crack_md.models.teachers import TeacherLabels
from crack_md.training.data.frames import Frames, JacobianBatch
from crack_md.training.loop.heads import FeatureHead
from crack_md.training.loop.objective import Objective
from crack_md.training.losses import (
    EnergyLoss,
    ForceLoss,
    HessianLoss,
    InstanceLoss,
    LossTerm,
    NodeToNodeLoss,
    TripletLoss,
    WeightedTerm,
)
from tests.factories import tiny_model
from tests.training.factories import CHANNELS, contrast, crack_term, labelled

MODEL = tiny_model(dtype=torch.float32)
FRAMES = Frames([labelled(n) for n in range(3)], MODEL.rule)
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


def test_terms_may_have_heads_of_their_own() -> None:
    total = objective(own_heads={"n2n": FeatureHead(8, CHANNELS)})
    assert list(total.heads) == ["shared", "n2n"]
    MODEL.train()
    parts = {}
    for name in ("crack", "n2n"):
        total.zero_grad()
        total.terms = tuple(t for t in objective().terms if t.term.name == name)
        total(BATCH).total.backward()
        parts[name] = [
            head.linear.weight.grad is not None
            and bool(head.linear.weight.grad.abs().sum() > 0)
            for head in total.heads.values()
        ]
    MODEL.eval()
    MODEL.zero_grad()
    assert parts == {"crack": [True, False], "n2n": [False, True]}


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
    total.terms, total.weights = (WeightedTerm(Probe(), 1.0),), {"probe": 1.0}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total(BATCH)
    assert seen == [(torch.float32, torch.float32)]


@pytest.mark.parametrize("forces", ["gradient", "direct"])
@pytest.mark.parametrize("periodic_cell", [(1, 1, 1), (2, 1, 1)])
def test_perfect_crystals_stay_finite_in_bfloat16(
    forces: str, periodic_cell: tuple[int, int, int]
) -> None:
    student = tiny_model(dtype=torch.float32, forces=forces).train()
    atoms = bulk("Cu") * periodic_cell
    answer = labels_of(atoms)
    frames = Frames([answer], student.rule)
    batch = frames.batch(torch.arange(1))
    jacobian = JacobianBatch(
        torch.zeros(1, 2, dtype=torch.long),
        torch.arange(2)[None],
        torch.zeros(2, len(atoms), 3),
    )
    terms: list[LossTerm] = [
        crack_term(degrees=(0, 1, 2)),
        InstanceLoss(contrast()),
        NodeToNodeLoss((0, 1, 2)),
        TripletLoss(8, "smooth_l1", 1e-3),
        HessianLoss(
            "gradient" if forces == "gradient" else "differences", 2, 1.0, 0.01
        ),
        ForceLoss("output", 1.0),
    ]
    total = Objective(
        student,
        [WeightedTerm(term, 1.0) for term in terms],
        head=FeatureHead(8, CHANNELS, spreads=[1.0, 1.0]),
        autocast_dtype=torch.bfloat16,
    )
    report = total(batch._replace(jacobian=jacobian))
    report.total.backward()
    assert all(value.isfinite() for value in report.parts.values())
    for name, weight in total.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name


def labels_of(atoms: Atoms) -> LabelledStructure:
    """Return a crystal whose teacher sees all atoms as equal, and no force."""
    n = len(atoms)
    forces, features = np.zeros((n, 3)), np.zeros((n, 9, CHANNELS), dtype=np.float32)
    features[:, 0] = 1.0
    return dataclasses.replace(
        labelled(0),
        atoms=atoms,
        forces=forces,
        free=np.ones(n, dtype=bool),
        teacher=TeacherLabels(0.0, forces, features),
    )
