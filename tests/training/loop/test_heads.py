"""Heads P: which there are, what they do to degrees, and the file they leave."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from crack_md.errors import CheckpointError
from crack_md.training.config import FeatureConfig
from crack_md.training.data.frames import Frames
from crack_md.training.loop.heads import (
    SHARED,
    FeatureHead,
    build_heads,
    degree_spread,
    heads_state,
    read_head,
    start_heads,
)
from crack_md.training.losses import LossConfig
from crack_md.training.losses.crack import CrackConfig
from crack_md.training.losses.instance import InstanceConfig
from crack_md.training.losses.n2n import NodeToNodeConfig
from crack_md.training.losses.supervised import SupervisedConfig
from tests.factories import tiny_model
from tests.training.factories import CHANNELS, labelled

FRAMES = Frames(
    [labelled(number) for number in range(3)],
    tiny_model().rule,
)
CRACK = CrackConfig(kind="crack", weight=1, temperature=1, degrees=(0, 1, 2))
INSTANCE = InstanceConfig(kind="instance", weight=1, temperature=1)
N2N = NodeToNodeConfig(kind="n2n", weight=1)
TASK = SupervisedConfig(kind="task", energy_weight=1, force_weight=1)


def heads_of(*losses: LossConfig, **features: object) -> dict[str, FeatureHead]:
    return build_heads(FeatureConfig(**features), losses, 8, FRAMES)


def test_one_head_serves_all_terms() -> None:
    assert heads_of(TASK) == {}
    heads = heads_of(TASK, CRACK, N2N)
    assert list(heads) == [SHARED]
    assert len(heads[SHARED].higher) == 2
    assert len(heads_of(N2N)[SHARED].higher) == 0
    assert heads[SHARED].linear.weight.shape == (CHANNELS, 8)


def test_head_per_term_leaves_that_of_n2n() -> None:
    heads = heads_of(CRACK, INSTANCE, N2N, heads="per_term")
    assert list(heads) == [SHARED, "crack", "instance"]
    assert [len(head.higher) for head in heads.values()] == [0, 2, 0]
    assert list(heads_of(INSTANCE, CRACK, heads="per_term")) == [SHARED, "crack"]
    assert list(heads_of(CRACK, CRACK, heads="per_term")) == [SHARED, "crack_2"]


def test_statistics_are_those_of_the_training_set() -> None:
    features = FRAMES.features
    assert features is not None
    head = heads_of(N2N, normalize=True)[SHARED]
    compared = head(torch.zeros(len(features), 8), features).teacher
    assert torch.allclose(compared.mean(dim=0), torch.zeros(CHANNELS), atol=1e-6)
    assert compared.square().mean().item() == pytest.approx(1)
    plain = heads_of(N2N)[SHARED]
    assert torch.equal(plain(torch.zeros(1, 8), features[:1]).teacher, features[:1])


def test_spread_of_a_degree_is_its_root_mean_square() -> None:
    frames = []
    for value in (3.0, 4.0):
        frame = labelled(1)
        assert frame.teacher is not None
        coefficients = np.full((4, 4, 2), 9.0, dtype=np.float32)
        coefficients[:, 1:] = value
        teacher = dataclasses.replace(frame.teacher, node_features=coefficients)
        frames.append(dataclasses.replace(frame, teacher=teacher))
    assert degree_spread(frames, 1) == pytest.approx(12.5**0.5)
    assert degree_spread(frames, 2) == 1.0  # there is none


def test_degrees_are_mapped_apart_and_scaled() -> None:
    head = FeatureHead(3, 2, spreads=[2.0, 4.0])
    student, teacher = torch.randn(5, 9, 3), torch.randn(5, 9, 2)
    features = head.by_degree(student, teacher)
    assert [part.student.shape[1] for part in features] == [2, 6, 10]
    assert torch.allclose(features[2].teacher, teacher[:, 4:].flatten(1) / 4)
    only_one = torch.zeros_like(student)
    only_one[:, 2] = student[:, 2]
    mapped = head.by_degree(only_one, teacher)
    assert mapped[0].student.abs().max() == 0
    assert mapped[2].student.abs().max() == 0
    expected = head.higher[0].linear(student[:, 2])  # type: ignore[union-attr, operator]
    found = mapped[1].student.unflatten(1, (3, 2))
    assert torch.allclose(found[:, 1], expected)
    assert found[:, [0, 2]].abs().max() == 0


def test_file_holds_every_head(tmp_path: Path) -> None:
    heads = heads_of(CRACK, INSTANCE, heads="per_term", normalize=True)
    model = tmp_path / "student.pt"
    torch.save(heads_state(heads), tmp_path / "feature_head.pt")
    shared = read_head(None, beside=model)
    assert shared is not None
    assert shared.std == heads[SHARED].std
    for key, value in heads[SHARED].state_dict().items():
        assert torch.equal(shared.state_dict()[key], value)
    again = heads_of(CRACK, INSTANCE, N2N, heads="per_term")
    start_heads(again, model)
    # that of n2n has no forerunner but the shared one; the others have
    pairs = {SHARED: SHARED, "instance": "instance", "crack": SHARED}
    for name, source in pairs.items():
        if name in again and source in heads:
            assert torch.equal(again[name].linear.weight, heads[source].linear.weight)
    own, other = (h["crack" if "crack" in h else SHARED] for h in (again, heads))
    for one, two in zip(own.higher, other.higher, strict=True):
        assert torch.equal(one.linear.weight, two.linear.weight)  # type: ignore[union-attr]


def test_file_of_the_first_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "feature_head.pt"
    weight, mean = torch.randn(4, 3), torch.randn(4)
    state = {"linear.weight": weight, "mean": mean, "std": torch.tensor(2.0)}
    torch.save(state, path)
    head = read_head(path)
    assert head is not None
    assert torch.equal(head.linear.weight, weight)
    assert len(head.higher) == 0


def test_head_of_other_channels_starts_anew(tmp_path: Path) -> None:
    heads = heads_of(N2N)
    torch.save(heads_state(heads), tmp_path / "feature_head.pt")
    other = {SHARED: FeatureHead(9, CHANNELS)}
    before = other[SHARED].linear.weight.clone()
    start_heads(other, tmp_path / "student.pt")
    assert torch.equal(other[SHARED].linear.weight, before)


def test_head_that_is_none(tmp_path: Path) -> None:
    assert read_head(None, beside=tmp_path / "student.pt") is None
    path = tmp_path / "feature_head.pt"
    path.write_text("no tensor")
    with pytest.raises(CheckpointError, match=r"feature_head\.pt: no feature head"):
        read_head(path)
