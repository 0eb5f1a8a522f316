"""An EquiformerV2 checkpoint as a teacher says what the model says."""

import numpy as np
import pytest
import torch
from ase.build import bulk, fcc111

from crack_md.errors import TeacherError
from crack_md.models.checkpoint import save_model
from crack_md.models.force_field import invariants
from crack_md.models.teachers import load_teacher
from crack_md.models.teachers.equiformer import EquiformerTeacher
from crack_md.neighbors import build_graph
from tests.factories import tiny_model


@pytest.fixture(params=["gradient", "direct"])
def model(request):
    return tiny_model(forces=request.param)


def structures():
    slab = fcc111("Pt", (2, 2, 3), vacuum=6.0)
    slab.pbc = True
    slab.rattle(0.1, seed=0)
    return [slab, bulk("Cu"), bulk("Pd", cubic=True)]


def test_labels_are_the_models_predictions(model):
    teacher = EquiformerTeacher(model, name="tiny", sha256="0", atoms_per_batch=14)

    labels = teacher.predict(structures())

    for atoms, label in zip(structures(), labels, strict=True):
        graph = build_graph(atoms, model.rule, dtype=torch.float64)
        prediction = model(graph)
        assert label.energy == pytest.approx(prediction.energy.item(), rel=1e-10)
        np.testing.assert_allclose(
            label.forces, prediction.forces.detach().numpy(), atol=1e-10
        )
        np.testing.assert_allclose(
            label.node_features[:, 0],
            invariants(prediction).detach().numpy(),
            rtol=1e-5,
        )
        # of its own, no window on features of all degrees
        assert label.node_features.flags.c_contiguous
        assert label.node_energy.shape == (len(atoms),)
        assert label.node_energy.sum() == pytest.approx(label.energy, rel=1e-12)


def test_all_degrees_can_be_asked_for(model):
    teacher = EquiformerTeacher(model, name="tiny", sha256="0", all_degrees=True)

    (labels,) = teacher.predict([bulk("Cu")])

    assert labels.node_features.shape == (1, 9, 8)  # lmax 2


def test_a_checkpoint_is_a_teacher(tmp_path):
    path = tmp_path / "student.pt"
    save_model(tiny_model(dtype=torch.float32), path)

    by_path, by_kind = load_teacher(str(path)), load_teacher(f"eqv2:{path}")

    assert by_path.sha256 == by_kind.sha256
    assert by_path.name == "student"
    assert by_path.has_features
    assert by_path.energy_reference == "total"
    with pytest.raises(TeacherError, match="does not know Fe, which Fe holds"):
        by_path.predict([bulk("Fe")])
