import numpy as np
import pytest

from benchmarks.scores import agreement, site_order, top_recall


def test_agreement_of_shifted_energies() -> None:
    reference = np.array([0.0, 1.0, 2.0, 4.0])
    scores = agreement(reference, reference + np.array([0.5, 0.5, 0.5, 0.9]))
    assert scores["n"] == 4
    assert scores["MAE_eV"] == pytest.approx(0.6)
    assert scores["shift_eV"] == pytest.approx(0.5)
    assert scores["MAE_after_shift_eV"] == pytest.approx(0.1)
    assert scores["max_error_eV"] == pytest.approx(0.9)
    assert scores["spearman"] == pytest.approx(1.0)


def test_spearman_of_one_swap_of_neighbors() -> None:
    """1 - 6 Σ d² / (n (n² - 1)) with two ranks off by one: 1 - 12/60."""
    swapped = np.array([1.0, 2.0, 4.0, 3.0])
    scores = agreement(np.array([1.0, 2.0, 3.0, 4.0]), swapped)
    assert scores["spearman"] == pytest.approx(0.8)


def test_recall_counts_the_highest_that_both_have() -> None:
    reference = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
    model = np.array([5.0, 1.0, 4.0, 3.0, 2.0])
    assert top_recall(reference, model, 1) == 1.0
    assert top_recall(reference, model, 2) == 0.5
    assert top_recall(reference, model, 3) == pytest.approx(2 / 3)
    assert top_recall(reference, model, 2, among=5) == 1.0
    assert top_recall(reference, model, 2, among=1) == 0.5
    assert top_recall(reference, -reference, 2) == 0.0
    assert top_recall(reference, -reference, 99) == 1.0  # all of five


def test_order_of_sites_is_counted_pair_by_pair_within_slabs() -> None:
    slabs = ["Pt", "Pt", "Pt", "Au", "Au", "Cu"]
    dft = np.array([0.0, 1.0, 2.0, 5.0, 6.0, 9.0])
    # Pt: two of three pairs alike, its lowest site wrong; Au: as it should be
    model = np.array([1.0, 0.0, 2.0, 7.0, 8.0, -9.0])
    found = site_order(slabs, dft, model)
    assert found["site_pairs"] == 4
    assert found["site_order_accuracy"] == pytest.approx(3 / 4)
    assert found["best_site_right"] == pytest.approx(1 / 2)


def test_order_does_not_depend_on_the_order_of_rows_or_a_shift() -> None:
    random = np.random.default_rng(0)
    slabs = np.array([f"slab {i % 5}" for i in range(20)])
    dft, model = random.normal(size=20), random.normal(size=20)
    turn = random.permutation(20)
    shuffled = site_order(list(slabs[turn]), dft[turn], model[turn] + 7.0)
    assert shuffled == site_order(list(slabs), dft, model)


def test_no_slab_with_two_sites_gives_no_number() -> None:
    found = site_order(["Pt", "Au"], np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    assert found["site_pairs"] == 0
    assert found["site_order_accuracy"] is None


def test_of_constant_energies_there_is_no_correlation() -> None:
    scores = agreement(np.array([1.0, 1.0]), np.array([1.0, 2.0]))
    assert scores["spearman"] is None
    assert scores["MAE_eV"] == 0.5
