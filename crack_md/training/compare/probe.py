"""How much of the teacher's features a student holds, whatever it was trained on.

The head P of a run exists only where a loss compares features, and is as good as its
training. The probe is the best P there is: least squares on training frames, with the
student as it stands. So students without such a loss are measured with the same rule.
"""

import torch
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
        frames: Training frames; `PROBE_FRAMES` evenly spaced ones are used.
        batch_size: Frames per forward pass.

    Returns:
        None where the frames have no teacher features.
    """
    features = frames.features
    if features is None:
        return None
    count = min(PROBE_FRAMES, len(frames))
    chosen = torch.arange(count) * len(frames) // count
    inputs, targets = _features(student, frames, chosen, batch_size)
    mean = features.mean(dim=0)
    std = (features - mean).square().mean().sqrt().item() or 1.0
    head = FeatureHead(inputs.shape[1], targets.shape[1], mean=mean, std=std)
    # float64 and a driver for dependent columns: some channels of a student are dead
    best = torch.linalg.lstsq(
        inputs.double(), ((targets - mean) / std).double(), driver="gelsd"
    ).solution
    with torch.no_grad():
        head.linear.weight.copy_(best.T)
    return head


def _features(
    student: ForceField, frames: Frames, chosen: Tensor, batch_size: int
) -> tuple[Tensor, Tensor]:
    was_training = student.training
    student.eval()
    inputs, targets = [], []
    with torch.no_grad():
        for part in chosen.split(batch_size):
            batch = frames.batch(part)
            assert batch.teacher is not None, "frames with features have a teacher"
            inputs.append(invariants(student(batch.graph)).float())
            targets.append(invariants(batch.teacher))
    student.train(was_training)
    return torch.cat(inputs), torch.cat(targets)
