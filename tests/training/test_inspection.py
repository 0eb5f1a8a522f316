"""Numbers of a closer look, against numbers by hand."""

import dataclasses

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111

from crack_md.neighbors import SmoothNeighbors, build_graph
from crack_md.training.inspection import (
    Inspection,
    coordination,
    embedding_map,
    errors_per_element,
    linear_cka,
    principal_axes,
    worst_frames,
)

RANDOM = np.random.default_rng(0)


def seen(**changes: object) -> Inspection:
    """Return two frames of three atoms: Cu, Cu, O and Cu, O, O; one Cu is held."""
    label = np.zeros((6, 3))
    label[:, 0] = [1.0, 1.0, 3.0, 1.0, 3.0, 3.0]
    forces = label.copy()
    forces[:, 1] = [0.3, 0.0, 0.6, 9.0, 0.0, -1.2]  # eV/Å of error
    base = Inspection(
        energy=np.array([-9.0, -12.3]),
        energy_label=np.array([-9.3, -12.0]),
        n_atoms=np.array([3, 3]),
        kind=("relaxed", "rattled"),
        group=("one", "two"),
        formula=("Cu2O", "CuO2"),
        frame=np.array([0, 0, 0, 1, 1, 1]),
        numbers=np.array([29, 29, 8, 29, 8, 8]),
        coordination=np.zeros(6, dtype=np.int64),
        free=np.array([True, True, True, False, True, True]),
        forces=forces,
        forces_label=label,
        student=None,
        teacher=None,
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_errors_of_every_element_by_hand() -> None:
    oxygen, copper = errors_per_element(seen())

    assert (oxygen.symbol, copper.symbol) == ("O", "Cu")
    # a mean over three components; the copper that is held counts nowhere
    assert copper.force_mae_meV_per_A == pytest.approx((300 + 0) / 3 / 2)
    assert oxygen.force_mae_meV_per_A == pytest.approx((600 + 0 + 1200) / 3 / 3)
    assert oxygen.zero_force_baseline_meV_per_A == pytest.approx(1000)
    assert copper.n_atoms == 2
    assert (copper.n_frames, oxygen.n_frames) == (1, 2)
    assert copper.energy_mae_meV_per_atom == pytest.approx(100)
    assert oxygen.embedding_cosine is None


def test_intervals_hold_the_mean_and_come_from_frames() -> None:
    oxygen, copper = errors_per_element(seen())

    # O errs by 200 in one frame and 200 (mean of 0 and 400) in the other
    assert oxygen.low_meV_per_A <= oxygen.force_mae_meV_per_A <= oxygen.high_meV_per_A
    assert oxygen.low_meV_per_A == pytest.approx(200)
    # all of copper sits in one frame, so resampling frames cannot move its mean
    assert copper.low_meV_per_A == copper.high_meV_per_A == pytest.approx(50)


def test_the_worst_frame_comes_first_and_once() -> None:
    first, second = worst_frames(seen())

    assert (first.group, first.on) == ("two", "O")
    assert first.largest_force_error_meV_per_A == pytest.approx(1200)
    assert first.energy_error_meV_per_atom == pytest.approx(-100)
    assert second.group == "one"
    assert second.largest_force_error_meV_per_A == pytest.approx(600)


def test_coordination_of_bulk_and_surface() -> None:
    rule = SmoothNeighbors(cutoff=5.0)
    slab = fcc111("Pt", (2, 2, 3), vacuum=8.0)
    inside = coordination(build_graph(bulk("Pt"), rule))
    layers = coordination(build_graph(slab, rule))

    assert inside.tolist() == [12]
    assert layers.tolist() == [9] * 4 + [12] * 4 + [9] * 4


def test_principal_axes_of_a_line_and_of_a_plane() -> None:
    steps = np.array([-2.0, -1.0, 0.0, 3.0])
    direction = np.array([0.6, 0.0, 0.8])
    mean, axes, share = principal_axes(1.0 + steps[:, None] * direction, 2)

    np.testing.assert_allclose(mean, 1.0)
    np.testing.assert_allclose(np.abs(axes[0] @ direction), 1.0)
    np.testing.assert_allclose(share, [1.0, 0.0], atol=1e-12)


def test_cka_of_equal_rotated_and_unrelated_sets() -> None:
    points = RANDOM.normal(size=(50, 4))
    rotation, _ = np.linalg.qr(RANDOM.normal(size=(4, 4)))
    x = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    y = np.array([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])

    assert linear_cka(points, points) == pytest.approx(1.0)
    assert linear_cka(points, 3.0 * points @ rotation + 7.0) == pytest.approx(1.0)
    assert linear_cka(x, y) == 0.0


def test_a_perfect_student_lies_on_its_teacher() -> None:
    n = 40
    features = RANDOM.normal(size=(n, 6))
    perfect = seen(
        numbers=np.full(n, 29),
        coordination=np.arange(n) % 12,
        student=features,
        teacher=features,
    )

    shown = embedding_map(perfect, n_atoms=30, seed=1)

    assert len(shown.numbers) == 30
    np.testing.assert_array_equal(shown.pca_student, shown.pca_teacher)
    assert shown.cosine == pytest.approx(1.0)
    assert shown.cka == pytest.approx(1.0)
    spread = np.ptp(shown.tsne_teacher, axis=0).max()
    away = np.linalg.norm(shown.tsne_teacher - shown.tsne_student, axis=1)
    assert np.median(away) < 0.05 * spread


def test_too_few_atoms_make_no_map() -> None:
    tiny = seen(
        numbers=np.array([29]), student=np.ones((1, 2)), teacher=np.ones((1, 2))
    )
    with pytest.raises(ValueError, match="1 atoms"):
        embedding_map(tiny)
    with pytest.raises(ValueError, match="no embeddings"):
        embedding_map(seen())


def test_coordination_counts_no_empty_slots() -> None:
    lone = build_graph(bulk("Pt", a=9.0), SmoothNeighbors(cutoff=5.0))
    assert torch.equal(coordination(lone), torch.tensor([0]))
