"""Error measures against numbers worked out by hand."""

import pytest
import torch

from crack_md.training.evaluation import (
    FrameErrors,
    concatenate,
    feature_statistics,
    force_statistics,
    mean_energy_errors,
    summarize,
)
from tests.training.factories import random_graph


def errors_of(*columns: list[float]) -> FrameErrors:
    return FrameErrors(
        *(torch.tensor(column, dtype=torch.float64) for column in columns)
    )


TWO_FRAMES = errors_of(
    [0.01, -0.03],  # energy error
    [0.1, 0.3],  # mean-energy error
    [2, 3],  # atoms
    [0.06, 0.12],  # Σ |ΔF|
    [0.6, 0.6],  # Σ |F|
    [6, 6],  # components
    [0.02, 0.04],  # largest |ΔF|
    [0.2, 0.3],  # Σ feature error
    [1.8, 2.7],  # Σ cosine
)


def test_means_over_frames_components_and_atoms() -> None:
    found = summarize(TWO_FRAMES)
    assert found.n_frames == 2
    assert found.energy_mae_meV == pytest.approx(20)
    assert found.energy_mae_meV_per_atom == pytest.approx(7.5)
    assert found.mean_energy_baseline_meV == pytest.approx(200)
    assert found.mean_energy_baseline_meV_per_atom == pytest.approx(75)
    assert found.force_mae_meV_per_A == pytest.approx(15)
    assert found.zero_force_baseline_meV_per_A == pytest.approx(100)
    assert found.efwt_percent == pytest.approx(50)
    assert found.embedding_mae == pytest.approx(0.1)
    assert found.embedding_cosine == pytest.approx(0.9)


def test_group_is_a_selection() -> None:
    one = summarize(TWO_FRAMES, torch.tensor([True, False]))
    assert one.n_frames == 1
    assert one.energy_mae_meV == pytest.approx(10)
    assert one.efwt_percent == 100
    again = concatenate([TWO_FRAMES, TWO_FRAMES])
    assert summarize(again).energy_mae_meV == pytest.approx(20)


def test_forces_count_free_atoms_only() -> None:
    graph = random_graph([1, 2])
    label = torch.tensor([[3.0, 0, 0], [0, 0, 1], [1, 1, 1]])
    forces = label + torch.tensor([[1.0, -1, 0], [0.5, 0, 0], [9, 9, 9]])
    free = torch.tensor([True, True, False])
    error, size, components, largest = force_statistics(forces, label, free, graph)
    assert error.tolist() == [2.0, 0.5]
    assert size.tolist() == [3.0, 1.0]
    assert components.tolist() == [3.0, 3.0]
    assert largest.tolist() == [1.0, 0.5]


def test_cosine_runs_over_features() -> None:
    graph = random_graph([2])
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    teacher = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    error, cosine = feature_statistics(student, teacher, graph)
    assert error.tolist() == [0.5 + 1.5]
    assert cosine.tolist() == [1.0]


def test_mean_energy_baseline_knows_what_is_extensive() -> None:
    residual, sizes = torch.tensor([1.0, 4.0]), torch.tensor([1, 2])
    total = mean_energy_errors(residual, sizes, extensive=True)
    adsorption = mean_energy_errors(residual, sizes, extensive=False)
    assert total.tolist() == [0.5, -1.0]
    assert adsorption.tolist() == [1.5, -1.5]
