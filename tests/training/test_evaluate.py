"""Evaluation on a dataset: a model that is right scores zero."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from crack_md.neighbors import build_graph
from crack_md.training.data.frames import Frames
from crack_md.training.evaluation import evaluate
from crack_md.training.loop.heads import FeatureHead
from tests.factories import tiny_model
from tests.training.factories import CHANNELS, labelled

MODEL = tiny_model(dtype=torch.float64)
BUILD = partial(build_graph, rule=MODEL.rule, dtype=torch.float64)


def own_labels(number: int) -> object:
    """Return a frame labelled by the model itself, its teacher's features kept."""
    frame = labelled(number)
    answer = MODEL(BUILD(frame.atoms))
    energy, forces = answer.energy.item(), answer.forces.detach().numpy()
    assert frame.teacher is not None
    teacher = dataclasses.replace(frame.teacher, energy=energy + 1.0, forces=forces)
    return dataclasses.replace(frame, energy=energy, forces=forces, teacher=teacher)


@pytest.fixture(scope="module")
def frames() -> Frames:
    return Frames([own_labels(n) for n in range(5)], MODEL.rule, dtype=torch.float64)


def test_right_model_has_no_errors(frames: Frames) -> None:
    found = evaluate(MODEL, frames, batch_size=2)
    assert found.all.energy_mae_meV == pytest.approx(0, abs=1e-6)
    assert found.all.force_mae_meV_per_A == pytest.approx(0, abs=1e-6)
    assert found.all.efwt_percent == 100
    assert found.all.zero_force_baseline_meV_per_A > 1
    assert found.all.mean_energy_baseline_meV > 1


def test_teacher_is_another_reference(frames: Frames) -> None:
    found = evaluate(MODEL, frames, against="teacher")
    assert found.all.energy_mae_meV == pytest.approx(1000)
    assert found.all.force_mae_meV_per_A == pytest.approx(0, abs=1e-6)


def test_groups_stand_apart() -> None:
    quiet = dataclasses.replace(labelled(1), forces=np.full((4, 3), 0.02))
    fixed = labelled(1)
    fixed.forces[1:] = 0.0  # atom 0 is held: its force does not count
    large = [labelled(number) for number in range(5)]
    frames = Frames([*large, quiet, fixed], MODEL.rule, dtype=torch.float64)
    found = evaluate(MODEL, frames)
    assert found.relaxed is not None
    assert found.unrelaxed is not None
    assert (found.relaxed.n_frames, found.unrelaxed.n_frames) == (2, 5)
    assert set(found.kinds) == {"relaxed", "rattled"}
    assert found.as_dict()["relaxed"]["n_frames"] == 2


def test_embedding_needs_the_head(frames: Frames) -> None:
    found = evaluate(MODEL, frames)
    assert found.all.embedding_cosine is None
    assert "head P" in found.embedding_skipped
    head = FeatureHead(8, CHANNELS)
    with torch.no_grad():
        found = evaluate(MODEL, frames, head=head)
    assert found.embedding_skipped is None
    assert -1 <= found.all.embedding_cosine <= 1
    assert found.all.embedding_mae > 0


def test_mode_of_the_model_is_left_alone(frames: Frames) -> None:
    MODEL.train()
    evaluate(MODEL, frames)
    assert MODEL.training
    MODEL.eval()
