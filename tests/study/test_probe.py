"""The probe finds the best linear map, and says what no linear map can."""

import dataclasses

import numpy as np
import pytest
import torch

from crack_md.models.force_field import invariants
from crack_md.neighbors import build_graph
from crack_md.study.perform import fit_probe, unexplained
from crack_md.training.data.frames import Frames
from tests.factories import tiny_model
from tests.training.factories import labelled

STUDENT = tiny_model(dtype=torch.float32)


def frames_with(features: list[np.ndarray]) -> Frames:
    """Return frames whose teacher says these features, (atom, channel) each."""
    structures = []
    for number, values in enumerate(features):
        one = labelled(number)
        assert one.teacher is not None
        held = dataclasses.replace(one.teacher, node_features=values[:, np.newaxis])
        structures.append(dataclasses.replace(one, teacher=held))
    return Frames(structures, STUDENT.rule)


def own_features() -> list[np.ndarray]:
    """Return what the student itself says, frame by frame."""
    graphs = [build_graph(labelled(n).atoms, STUDENT.rule) for n in range(6)]
    return [invariants(STUDENT(graph)).detach().numpy() for graph in graphs]


def test_a_linear_map_of_the_student_is_found() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(8, 3)).astype(np.float32)
    own = own_features()
    # a mean of zero after the shift: the probe has no constant of its own
    center = np.concatenate(own).mean(axis=0)
    weight = matrix - np.outer(center, center @ matrix) / (center @ center)
    frames = frames_with([one @ weight + 5 for one in own])
    probe = fit_probe(STUDENT, frames)
    assert probe is not None
    found = probe.linear.weight.T * probe.std
    inputs = torch.from_numpy(np.concatenate(own))
    assert torch.allclose(inputs @ found, inputs @ torch.from_numpy(weight), atol=1e-3)
    assert unexplained(STUDENT, frames, probe) == pytest.approx(0.0, abs=1e-4)


def test_the_means_of_elements_leave_all_unexplained() -> None:
    rng = np.random.default_rng(0)
    frames = frames_with(
        [rng.normal(size=(len(f), 1)).astype(np.float32) for f in own_features()]
    )
    probe = fit_probe(STUDENT, frames)
    assert probe is not None
    with torch.no_grad():
        probe.linear.weight.zero_()
    numbers = np.concatenate([one.atoms.numbers for one in frames.structures])
    assert frames.features is not None
    values = frames.features[:, 0].double().numpy()
    within = sum(values[numbers == z].var() * (numbers == z).sum() for z in (29, 79))
    # a map to zero misses the variance of all, the means of elements a part of it
    expected = values.var() * len(values) / within
    assert unexplained(STUDENT, frames, probe) == pytest.approx(expected, rel=1e-5)
    assert expected > 1


def test_a_teacher_without_features_has_no_probe() -> None:
    structures = [labelled(0, with_teacher=False)]
    bare = Frames(structures, STUDENT.rule)
    assert fit_probe(STUDENT, bare) is None
