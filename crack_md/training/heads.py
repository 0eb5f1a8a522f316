"""The linear head P that turns student features into the teacher's channels."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.errors import CheckpointError
from crack_md.training.losses import Features


class FeatureHead(nn.Module):
    """The linear head P, student channels → teacher channels, shared by all terms.

    It has no bias, trains beside the student and never reaches ``student.pt``.
    Teacher features are compared as ``(z − mean) / std``: 0 and 1 leave them as they
    are (the paper); otherwise the mean of every channel and one number for the spread,
    both of the training set and fixed.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        *,
        mean: Float[Tensor, " channel"] | None = None,
        std: float = 1.0,
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(student_channels, teacher_channels, bias=False)
        zero = torch.zeros(teacher_channels)
        self.register_buffer("mean", zero if mean is None else mean.float())
        self.register_buffer("std", torch.tensor(std))

    def forward(
        self,
        student: Float[Tensor, "atom student_channel"],
        teacher: Float[Tensor, "atom teacher_channel"],
    ) -> Features:
        """Return both features in the teacher's channels, in float32."""
        return Features(
            teacher=((teacher.float() - self.mean) / self.std).detach(),
            student=self.linear(student.float()),
        )


def read_head(path: Path | None, *, beside: Path | None = None) -> FeatureHead | None:
    """Return the head P that a run has left, or None where there is none.

    Args:
        path: The file, or None to look beside a model.
        beside: The model whose folder is looked at.

    Raises:
        CheckpointError: The file is damaged or something else.
    """
    if path is None:
        path = None if beside is None else beside.with_name("feature_head.pt")
        if path is None or not path.exists():
            return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        n_teacher, n_student = state["linear.weight"].shape
        head = FeatureHead(n_student, n_teacher)
        head.load_state_dict(state)
    except Exception as error:
        raise CheckpointError(
            f"{path}: no feature head of a training run ({type(error).__name__}); "
            "expected the feature_head.pt of the run that made the model"
        ) from None
    return head
