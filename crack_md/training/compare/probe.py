"""How much of the teacher's features a student holds, whatever it was trained on.

The head P of a run exists only where a loss compares features, and is as good as its
training. The probe is the best P there is: least squares on training frames, with the
student as it stands. So students without such a loss are measured with the same rule.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.models.base import invariants
from crack_md.models.force_field import ForceField
from crack_md.training.frames import Frames
from crack_md.training.heads import FeatureHead

PROBE_FRAMES = 400
"""Some thousand atoms: far more than the channels of a student."""


def fit_probe(
    student: ForceField, frames: Frames, *, batch_size: int = 32
) -> FeatureHead | None:
    """Return the linear map from student to teacher features, fitted to these frames.

    Teacher features are shifted by the mean of every channel and divided by one spread,
    so that 1 is the size of what is to be explained.

    Args:
        student: The model; left in the mode it was in.
        frames: Of the training set; `PROBE_FRAMES` evenly spaced ones are used.
        batch_size: Frames per forward pass.

    Returns:
        None where the frames have no teacher features.
    """
    features = frames.features
    if features is None:
        return None
    atoms = _atoms(student, frames, batch_size)
    mean = features.mean(dim=0)
    std = (features - mean).square().mean().sqrt().item() or 1.0
    head = FeatureHead(
        atoms.student.shape[1], atoms.teacher.shape[1], mean=mean, std=std
    )
    # float64 and a driver for dependent columns: some channels of a student are dead
    best = torch.linalg.lstsq(
        atoms.student.double(), ((atoms.teacher - mean) / std).double(), driver="gelsd"
    ).solution
    with torch.no_grad():
        head.linear.weight.copy_(best.T)
    return head


def unexplained(
    student: ForceField, frames: Frames, probe: FeatureHead, *, batch_size: int = 32
) -> float:
    """Return the share of the teacher's variance within elements that a probe misses.

    Most of a feature often says which element an atom is, which any student knows. Here
    1 is what the mean of every element reaches, and 0 is the teacher.
    """
    atoms = _atoms(student, frames, batch_size)
    with torch.no_grad():
        teacher, mapped = probe(atoms.student, atoms.teacher)
    missed = (teacher - mapped).square().sum()
    elements, element = atoms.numbers.unique(return_inverse=True)
    sums = teacher.new_zeros(len(elements), teacher.shape[1])
    sums.index_add_(0, element, teacher)
    means = sums / torch.bincount(element).unsqueeze(1)
    within = (teacher - means[element]).square().sum()
    return (missed / within.clamp_min(1e-12)).item()


class _Atoms(NamedTuple):
    student: Float[Tensor, "atom student_channel"]
    teacher: Float[Tensor, "atom teacher_channel"]
    numbers: Int[Tensor, " atom"]


def _atoms(student: ForceField, frames: Frames, batch_size: int) -> _Atoms:
    """Return the invariant features of all atoms of evenly spaced frames."""
    count = min(PROBE_FRAMES, len(frames))
    chosen = torch.arange(count) * len(frames) // count
    was_training = student.training
    student.eval()
    parts = []
    with torch.no_grad():
        for part in chosen.split(batch_size):
            batch = frames.batch(part)
            assert batch.teacher is not None, "frames with features have a teacher"
            parts.append(
                _Atoms(
                    invariants(student(batch.graph)).float(),
                    invariants(batch.teacher),
                    batch.graph.atomic_numbers,
                )
            )
    student.train(was_training)
    return _Atoms(*(torch.cat(column) for column in zip(*parts, strict=True)))
