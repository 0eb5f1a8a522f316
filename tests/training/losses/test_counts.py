"""Every loss says over how many items it averages, before the student is asked."""

import dataclasses

import pytest
import torch
from torch import Tensor

from crack_md.training.data.frames import JacobianBatch
from crack_md.training.losses import (
    CrmseLoss,
    DistillationStep,
    EnergyLoss,
    Features,
    ForceLoss,
    HessianLoss,
    InstanceLoss,
    LossTerm,
    NodeEnergyLoss,
    NodeToNodeLoss,
    TripletLoss,
)
from tests.training.factories import contrast, crack_term, random_graph, step_of

TERMS = {
    "energy": EnergyLoss("task", 1.0, False),
    "task forces": ForceLoss("task", 1.0),
    "output forces": ForceLoss("output", 1.0),
    "crack": crack_term(),
    "both directions": crack_term(pairs="directed"),
    "crack of three degrees": crack_term(degrees=(0, 1, 2)),
    "crack by element": crack_term(same_elements=True, smallest_difference=1.2),
    "instance": InstanceLoss(contrast(sample=2)),
    "n2n": NodeToNodeLoss((0, 1)),
    "node energy": NodeEnergyLoss(1.0, False),
    "triplet": TripletLoss(3, "mse", 1.2),
    "hessian": HessianLoss("differences", 2, 1.0, 0.01),
    "all rows": HessianLoss("differences", 9, 1.0, 0.01),
    "crmse": CrmseLoss(1.0),
}
N_ATOMS = 12


def full_step() -> DistillationStep:
    """Return a step with all that any loss reads: 5 + 4 + 3 atoms, 7 of them free."""
    graph = random_graph([5, 4, 3])
    graph = graph._replace(atomic_numbers=graph.atomic_numbers % 2 + 28)
    step = step_of(graph, seed=1)
    features = [step.features[0]]
    for n in (3, 5):
        shape = 2, N_ATOMS, n * step.features[0].teacher.shape[1]
        features.append(Features(*torch.randn(shape).unbind()))
    node_energy = torch.randn(N_ATOMS, dtype=torch.float64)
    assert step.teacher is not None
    return dataclasses.replace(
        step,
        student=step.student._replace(node_energy=node_energy),
        teacher=step.teacher._replace(node_energy=node_energy),
        labels=step.labels._replace(free=torch.arange(N_ATOMS) < 7),
        features=tuple(features),
        jacobian=JacobianBatch(
            torch.tensor([[0, 1, 2], [5, 6, 7], [9, 10, 11]]),
            torch.zeros(3, 3, dtype=torch.long),
            torch.zeros(3, N_ATOMS, 3),
        ),
        model=lambda _: step.student,
        energy_of=lambda chains: torch.zeros(chains.n_structures),
        # chains of the last two structures; the first has none
        chains=random_graph([4, 3])._replace(atomic_numbers=graph.atomic_numbers[5:]),
    )


@pytest.mark.parametrize("name", TERMS)
def test_as_many_as_are_averaged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    term: LossTerm = TERMS[name]
    step, seen = full_step(), []
    mean = DistillationStep.mean

    def counting(self: DistillationStep, values: Tensor, **of: object) -> Tensor:
        seen.append((of["term"], of.get("place", 0), values.numel()))
        return mean(self, values, **of)  # type: ignore[arg-type]

    monkeypatch.setattr(DistillationStep, "mean", counting)
    counts = term.count_items(step)
    term(step)
    assert seen == [(term.name, place, n) for place, n in enumerate(counts)]
    assert all(n > 0 for n in counts)


def test_known_numbers() -> None:
    step = full_step()
    known = {
        "energy": 3,
        "task forces": 7,
        "output forces": 12,
        "n2n": 12,
        "hessian": 24,
        "all rows": 36,
        "crmse": 2,
    }
    found = {name: tuple(TERMS[name].count_items(step)) for name in known}
    assert found == {name: (n,) for name, n in known.items()}
    pairs = TERMS["crack"].count_items(step)[0]
    assert TERMS["both directions"].count_items(step)[0] == 2 * pairs


def test_a_part_is_its_share_of_the_whole_mean() -> None:
    step = full_step()
    term = NodeToNodeLoss()
    part = dataclasses.replace(step, counts={"n2n": torch.tensor([48.0])})
    assert term(part).item() == pytest.approx(term(step).item() / 4, rel=1e-6)


def test_counting_draws_nothing() -> None:
    """What a loss draws is the same whether the batch was counted before or not."""
    state = torch.get_rng_state()
    for term in TERMS.values():
        step = full_step()
        state = torch.get_rng_state()
        term.count_items(step)
        assert torch.equal(torch.get_rng_state(), state)
