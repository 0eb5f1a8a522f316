from pathlib import Path

import numpy as np
import pytest
import torch

from crack_md.errors import CheckpointError
from crack_md.models.checkpoint import load_model, save_model
from crack_md.models.domain import ElementStatistics, FeatureStatistics
from crack_md.models.force_field import ForceField, ModelMetadata
from tests.factories import ELEMENTS, tiny_model

PLATINUM, OXYGEN = 78, 8


def cloud(n_atoms: int, *, seed: int = 0) -> np.ndarray:
    """Features whose first channel scatters by 2, the second by 0.5, mean (1, -1)."""
    return np.random.default_rng(seed).normal([1.0, -1.0], [2.0, 0.5], (n_atoms, 2))


def test_distance_by_hand() -> None:
    """d² is the mean of (z - μ)²/σ² over channels."""
    plain = ElementStatistics(np.zeros(2), np.diag([1 / 4.0, 4.0]), 1.0, 10)
    assert plain.distance(np.array([[2.0, 0.0]]))[0] == pytest.approx(np.sqrt(0.5))
    assert plain.distance(np.array([[2.0, 0.5]]))[0] == pytest.approx(1.0)
    assert plain.distance(np.array([[0.0, 0.0]]))[0] == 0.0


def test_many_atoms_give_back_their_distribution() -> None:
    found = ElementStatistics.of(cloud(100_000))
    assert found.mean == pytest.approx([1.0, -1.0], abs=0.02)
    covariance = np.linalg.inv(found.precision)
    # 1/1000 of the way to the mean variance, (4 + 1/4)/2
    expected = 0.999 * np.array([4.0, 0.25]) + 0.001 * 2.125
    assert np.diag(covariance) == pytest.approx(expected, rel=0.02)
    # 99.9 % of a two-dimensional normal lies within √(-2 ln 0.001) = 3.717 σ
    assert found.limit == pytest.approx(3.717 / np.sqrt(2), rel=0.03)


def test_one_in_a_thousand_training_atoms_is_outside() -> None:
    features = cloud(20_000)
    outside = (ElementStatistics.of(features).distance(features) > 1).mean()
    assert outside == pytest.approx(0.001, abs=2e-4)


def test_scale_and_rotation_of_features_do_not_matter() -> None:
    """As in training: what counts is how unusual an atom is."""
    features, other = cloud(5_000), cloud(50, seed=1)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]]) * 7.0
    usual = ElementStatistics.of(features).distance(other)
    turned = ElementStatistics.of(features @ turn).distance(other @ turn)
    assert turned == pytest.approx(usual, rel=1e-9)


def test_few_atoms_are_no_error() -> None:
    found = ElementStatistics.of(np.array([[0.0, 1.0, 2.0], [0.1, 1.0, 2.0]]))
    assert np.isfinite(found.distance(np.zeros((1, 3)))).all()
    same = ElementStatistics.of(np.ones((3, 2)))
    assert same.distance(np.ones((1, 2)))[0] == 0.0


def test_elements_are_kept_apart() -> None:
    features = np.concatenate([cloud(500), cloud(500) + 100.0, [[0.0, 0.0]]])
    numbers = np.array([PLATINUM] * 500 + [OXYGEN] * 500 + [1])
    found = FeatureStatistics.of(features, numbers)
    assert set(found.elements) == {PLATINUM, OXYGEN}
    here = np.array([[1.0, -1.0]])
    assert found.distance(here, np.array([PLATINUM]))[0] < 0.1
    assert found.distance(here, np.array([OXYGEN]))[0] > 10.0
    assert found.distance(here, np.array([1]))[0] == np.inf


def test_model_file_keeps_them(tmp_path: Path) -> None:
    statistics = FeatureStatistics.of(cloud(100), np.full(100, PLATINUM))
    bare = tiny_model()
    metadata = ModelMetadata("total", ELEMENTS, feature_statistics=statistics)
    model = ForceField(bare.network, bare.scale, metadata)
    save_model(model, tmp_path / "a.pt")
    loaded = load_model(tmp_path / "a.pt").metadata.feature_statistics
    assert loaded is not None
    features = cloud(5, seed=3)
    assert loaded.elements[PLATINUM].n_atoms == 100
    assert loaded.distance(features, np.full(5, PLATINUM)) == pytest.approx(
        statistics.distance(features, np.full(5, PLATINUM)), rel=1e-5
    )
    save_model(bare, tmp_path / "b.pt")
    assert load_model(tmp_path / "b.pt").metadata.feature_statistics is None


def test_damaged_statistics_are_told(tmp_path: Path) -> None:
    save_model(tiny_model(), tmp_path / "a.pt")
    content = torch.load(tmp_path / "a.pt", weights_only=True)
    content["feature_statistics"] = {PLATINUM: {"mean": torch.zeros(2)}}
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"feature statistics.*crack-md domain"):
        load_model(tmp_path / "a.pt")
