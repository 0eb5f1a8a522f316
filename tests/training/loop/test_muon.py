"""Orthogonal steps, and Adam's beside them."""

import copy

import pytest
import torch
from torch import Tensor, nn

from crack_md.training.loop.optim import STEP_RMS, Muon, adamw, muon, orthogonalize

N_ELEMENTS = 9


def build() -> nn.ModuleDict:
    """Return a layer, a stack of matrices, a table of elements and a readout."""
    torch.manual_seed(0)
    module = nn.ModuleDict({"layer": nn.Linear(6, 4), "readout": nn.Linear(4, 1)})
    module.stack = nn.Parameter(torch.randn(3, 5, 7))
    module.table = nn.Parameter(torch.randn(N_ELEMENTS, 4))
    return module


def loss(module: nn.ModuleDict, inputs: Tensor) -> Tensor:
    return module["readout"](module["layer"](inputs)).square().sum()


def groups_by_name(module: nn.ModuleDict, optimizer: Muon) -> dict[str, str]:
    names = {parameter: name for name, parameter in module.named_parameters()}
    return {
        names[p]: ("orthogonal" if group["is_orthogonal"] else "adam")
        + (" decays" if group["weight_decay"] else "")
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize("shape", [(8, 8), (4, 16), (16, 4), (3, 5, 12)])
def test_singular_values_become_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    given = torch.randn(shape, dtype=torch.float64)
    made = orthogonalize(given)
    left, _, right = torch.linalg.svd(given, full_matrices=False)
    values = left.mT @ made @ right.mT
    diagonal = values.diagonal(dim1=-2, dim2=-1)
    assert 0.5 < diagonal.min() <= diagonal.max() < 1.3
    torch.testing.assert_close(values, torch.diag_embed(diagonal), rtol=0, atol=1e-9)


def test_no_gradient_is_no_step() -> None:
    assert not orthogonalize(torch.zeros(3, 4)).any()


def test_matrices_step_orthogonally_and_all_else_by_adam() -> None:
    module = build()
    optimizer = muon(module, lr=0.1, weight_decay=0.1, n_elements=N_ELEMENTS)
    assert groups_by_name(module, optimizer) == {
        "layer.weight": "orthogonal decays",
        "stack": "orthogonal decays",
        "layer.bias": "adam",
        "readout.bias": "adam",
        "readout.weight": "adam decays",
        "table": "adam decays",
    }


def test_first_step_is_that_of_the_gradient_made_orthogonal() -> None:
    weight = nn.Parameter(torch.zeros(4, 6))
    optimizer = Muon(
        [{"params": [weight], "is_orthogonal": True, "weight_decay": 0.0}], lr=0.5
    )
    left, right = torch.linalg.qr(torch.randn(4, 4))[0], torch.eye(4, 6)
    weight.grad = 3.0 * left @ right
    optimizer.step()
    # All singular values are alike, so Newton-Schulz keeps them alike.
    direction = -weight.detach() / (0.5 * STEP_RMS * 6**0.5)
    scale = direction.norm() / 2
    torch.testing.assert_close(direction, scale * left @ right, rtol=0, atol=1e-5)
    assert 0.7 < scale < 1.2


def test_vectors_move_as_by_pytorch_adamw() -> None:
    ours = nn.Linear(7, 1)
    theirs = copy.deepcopy(ours)
    steppers = [
        muon(ours, lr=0.1, weight_decay=0.1, n_elements=N_ELEMENTS),
        adamw(theirs, lr=0.1, weight_decay=0.1),
    ]
    for seed in range(20):
        for module, stepper in zip((ours, theirs), steppers, strict=True):
            torch.manual_seed(seed)
            module(torch.randn(3, 7)).square().sum().backward()
            stepper.step()
            stepper.zero_grad()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(ours.bias, theirs.bias, rtol=1e-6, atol=1e-7)


def test_weights_without_a_gradient_stay() -> None:
    module = build()
    before = module.stack.detach().clone()
    optimizer = muon(module, lr=0.1, weight_decay=0.1, n_elements=N_ELEMENTS)
    loss(module, torch.randn(5, 6)).backward()
    optimizer.step()
    assert torch.equal(module.stack, before)


def test_a_resumed_optimizer_goes_on_as_if_never_stopped() -> None:
    whole, first = build(), build()
    batches = torch.randn(6, 5, 6)

    def run(module: nn.ModuleDict, optimizer: Muon, part: Tensor) -> None:
        for inputs in part:
            loss(module, inputs).backward()
            optimizer.step()
            optimizer.zero_grad()

    options = {"lr": 0.05, "weight_decay": 0.1, "n_elements": N_ELEMENTS}
    run(whole, muon(whole, **options), batches)
    stopped = muon(first, **options)
    run(first, stopped, batches[:3])
    second = copy.deepcopy(first)
    resumed = muon(second, **options)
    resumed.load_state_dict(stopped.state_dict())
    run(second, resumed, batches[3:])
    for name, weight in whole.named_parameters():
        assert torch.equal(weight, second.get_parameter(name)), name
