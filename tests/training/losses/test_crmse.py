"""The contrast of data and chains on numbers worked out by hand."""

import dataclasses
import math

import pytest
import torch

from crack_md.graph import AtomGraph, batch_graphs
from crack_md.training.losses.crmse import CrmseLoss, contrast, same_composition
from tests.factories import graph_of, tiny_model, water
from tests.training.factories import step_of


def points(*numbers: list[int]) -> AtomGraph:
    """Return structures of these elements, with nothing else that matters."""
    return batch_graphs(
        [
            AtomGraph(
                positions=torch.zeros(len(some), 3),
                atomic_numbers=torch.tensor(some),
                cell=torch.zeros(1, 3, 3),
                pbc=torch.zeros(1, 3).bool(),
                batch=torch.zeros(len(some), dtype=torch.long),
                neighbors=torch.zeros(len(some), 1, dtype=torch.long),
                cell_shift=torch.zeros(len(some), 1, 3),
                mask=torch.zeros(len(some), 1).bool(),
            )
            for some in numbers
        ]
    )


def double(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_contrast_is_data_less_the_mean_of_its_chains() -> None:
    alike = torch.tensor([[True, True, False], [False, False, True]])
    found = contrast(double(1.0, 7.0), double(2.0, 4.0, 10.0), alike)
    assert found.tolist() == [1.0 - 3.0, 7.0 - 10.0]


def test_data_without_chains_are_left_out() -> None:
    alike = torch.tensor([[True], [False]])
    assert contrast(double(1.0, 5.0), double(0.25), alike).tolist() == [0.75]
    nothing = contrast(double(1.0), double(2.0), torch.tensor([[False]]))
    assert nothing.shape == (0,)


def test_a_zero_of_energy_per_composition_drops_out() -> None:
    alike = torch.tensor([[True, False], [False, True]])
    one = contrast(double(1.0, 2.0), double(0.5, 3.0), alike)
    shift = double(-31000.0, 88000.0)
    other = contrast(double(1.0, 2.0) + shift, double(0.5, 3.0) + shift, alike)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6)


def test_compositions_count_atoms_in_any_order() -> None:
    one = points([8, 1, 1], [6, 8])
    other = points([1, 8, 1], [1, 8], [8, 6], [8, 8, 1])
    assert same_composition(one, other).tolist() == [
        [True, False, False, False],
        [False, False, True, False],
    ]


def test_loss_is_in_units_of_heat() -> None:
    data, chains = points([1], [1]), points([1], [1], [1])
    step = step_of(data)
    student = step.student._replace(energy=double(3.0, 5.0))
    step = dataclasses.replace(
        step, student=student, chains=chains, energy_of=lambda _: double(1.0, 2.0, 6.0)
    )
    # (4 - 3) eV at kT = 0.05 eV
    assert CrmseLoss(1 / 0.05)(step).item() == pytest.approx(20.0)


def test_gradient_is_that_of_the_divergence() -> None:
    """KL(data‖p) of a discrete p = exp(−βU)/Z, differentiated by hand."""
    energies = double(0.0, 0.3, -0.2).requires_grad_()
    beta, data = 5.0, double(0.5, 0.25, 0.25)
    log_p = -beta * energies - torch.logsumexp(-beta * energies, dim=0)
    divergence = (data * (data.log() - log_p)).sum()
    (expected,) = torch.autograd.grad(divergence, energies)
    p = log_p.detach().exp()
    # four data in their shares against chains whose frequencies are p: 10^5 of them
    counts = (p * 100_000).round().long()
    chains = torch.repeat_interleave(energies, counts)
    frames = energies[torch.tensor([0, 0, 1, 2])]
    alike = torch.ones(4, len(chains)).bool()
    loss = beta * contrast(frames, chains, alike).mean()
    (found,) = torch.autograd.grad(loss, energies)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_energies_alone_are_those_of_a_call() -> None:
    model = tiny_model()
    graph = graph_of(model, water(), water())
    torch.testing.assert_close(model.energy(graph), model(graph).energy)
    weight = model.network.sphere_embedding.weight
    (gradient,) = torch.autograd.grad(model.energy(graph).sum(), weight)
    assert gradient.abs().max() > 0
    assert math.isfinite(float(gradient.norm()))
