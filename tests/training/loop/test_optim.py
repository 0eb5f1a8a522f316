"""Parameter groups, schedule and moving average."""

import math

import pytest
import torch
from torch import nn

from crack_md.training.loop.optim import MovingAverage, WarmupCosine, adamw


def schedule(**changes: object) -> WarmupCosine:
    options = {
        "lr": 1.0,
        "warmup_steps": 0,
        "lr_end_factor": 0.1,
        "max_steps": 100,
        "max_seconds": None,
    }
    return WarmupCosine(**(options | changes))  # type: ignore[arg-type]


def test_only_matrices_decay() -> None:
    module = nn.ModuleDict({"linear": nn.Linear(2, 3), "norm": nn.LayerNorm(3)})
    module["norm"].affine_weight = nn.Parameter(torch.ones(2, 3))
    module["linear"].frozen = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    decays, rest = adamw(module, lr=1.0, weight_decay=0.5).param_groups
    assert decays["weight_decay"] == 0.5
    assert rest["weight_decay"] == 0.0
    assert [p.shape for p in decays["params"]] == [(3, 2)]
    assert len(rest["params"]) == 4  # bias, norm weight, norm bias, affine_weight


def test_all_weights_at_once_step_as_one_by_one() -> None:
    modules = [nn.Linear(7, 5), nn.Linear(7, 5)]
    modules[1].load_state_dict(modules[0].state_dict())
    steppers = [
        adamw(modules[0], lr=0.1, weight_decay=0.1),
        adamw(modules[1], lr=0.1, weight_decay=0.1),
    ]
    for group in steppers[1].param_groups:
        group["foreach"] = False
    for seed in range(20):
        for module, stepper in zip(modules, steppers, strict=True):
            torch.manual_seed(seed)
            module(torch.randn(3, 7)).square().sum().backward()
            stepper.step()
            stepper.zero_grad()
    assert torch.equal(modules[0].weight, modules[1].weight)
    assert torch.equal(modules[0].bias, modules[1].bias)


def test_cosine_has_its_three_known_values() -> None:
    plan = schedule()
    assert plan.learning_rate(0, 0.0) == pytest.approx(1.0)
    assert plan.learning_rate(50, 0.0) == pytest.approx(0.55)
    assert plan.learning_rate(100, 0.0) == pytest.approx(0.1)


def test_warm_up_is_linear() -> None:
    plan = schedule(warmup_steps=10, max_steps=10**9)
    rates = [plan.learning_rate(step, 0.0) for step in (0, 4, 9, 20)]
    assert rates == pytest.approx([0.1, 0.5, 1.0, 1.0])


def test_the_budget_further_along_decides() -> None:
    plan = schedule(max_steps=100, max_seconds=50.0)
    assert plan.progress(10, 40.0) == pytest.approx(0.8)
    assert plan.progress(90, 10.0) == pytest.approx(0.9)
    assert plan.progress(1, 51.0) == 1.0
    middle = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.8))
    assert plan.learning_rate(10, 40.0) == pytest.approx(middle)


def test_average_of_a_constant_is_the_constant() -> None:
    module = nn.Linear(2, 2)
    average = MovingAverage(module, 0.9)
    before = module.weight.detach().clone()
    for _ in range(5):
        average.update()
    with average.applied():
        assert torch.allclose(module.weight, before)


def test_average_follows_the_recursion() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.weight.data.fill_(0.0)
    average = MovingAverage(module, 0.9)
    module.weight.data.fill_(1.0)
    average.update()  # decay (1 + 1)/(10 + 1)
    average.update()  # decay (1 + 2)/(10 + 2)
    with average.applied():
        assert module.weight.item() == pytest.approx(1 - 2 / 11 * 3 / 12)
    assert module.weight.item() == 1.0


def test_average_returns_the_weights_after_an_error() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = MovingAverage(module, 0.9)
    module.weight.data.fill_(3.0)

    with pytest.raises(KeyError), average.applied():
        raise KeyError
    assert module.weight.item() == 3.0
