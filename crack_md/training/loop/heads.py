"""The linear head P that turns student features into the teacher's channels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from crack_md.data.dataset import LabelledStructure
from crack_md.errors import CheckpointError
from crack_md.training.config import FeatureConfig
from crack_md.training.data.frames import Frames
from crack_md.training.losses import Features, LossConfig, term_names

SHARED = "shared"
"""The name of the head of all terms that have none of their own."""


class FeatureHead(nn.Module):
    """The linear head P, student channels → teacher channels, shared by all terms.

    It has no bias, trains beside the student and never reaches ``student.pt``.
    Teacher features are compared as ``(z − mean) / std``: 0 and 1 leave them as they
    are (the paper); otherwise the mean of every channel and one number for the spread,
    both of the training set and fixed.

    Args:
        student_channels: Of the student's features.
        teacher_channels: Of the teacher's.
        mean: Of every channel of the invariant features.
        std: Their spread.
        spreads: Those of degrees 1, 2 …, each with a linear map of its own. It acts on
            channels alone, so the coefficients turn with the structure as before.
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
        spreads: Sequence[float] = (),
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(student_channels, teacher_channels, bias=False)
        zero = torch.zeros(teacher_channels)
        self.register_buffer("mean", zero if mean is None else mean.float())
        self.register_buffer("std", torch.tensor(std))
        self.higher = nn.ModuleList(
            FeatureHead(student_channels, teacher_channels, std=spread)
            for spread in spreads
        )

    def forward(
        self,
        student: Float[Tensor, "*atom student_channel"],
        teacher: Float[Tensor, "*atom teacher_channel"],
    ) -> Features:
        """Return both features in the teacher's channels, in float32."""
        return Features(
            teacher=((teacher.float() - self.mean) / self.std).detach(),
            student=self.linear(student.float()),
        )

    def by_degree(
        self,
        student: Float[Tensor, "atom coefficient student_channel"],
        teacher: Float[Tensor, "atom coefficients teacher_channel"],
    ) -> tuple[Features, ...]:
        """Return the features of all degrees that this head maps, l = 0 first."""
        features = [self(student[:, 0], teacher[:, 0])]
        for degree, head in enumerate(self.higher, start=1):
            span = slice(degree**2, (degree + 1) ** 2)
            mapped = head(student[:, span], teacher[:, span])
            features.append(Features(*(part.flatten(1) for part in mapped)))
        return tuple(features)


def build_heads(
    config: FeatureConfig,
    losses: Sequence[LossConfig],
    student_channels: int,
    train: Frames,
) -> dict[str, FeatureHead]:
    """Return the heads of the losses that compare features, by name.

    The shared one comes first. With one head per term it is that of n2n, or else of the
    first term, since the head that a run leaves tells how well features match.
    """
    degrees: dict[str, int] = {
        name: max(getattr(loss, "degrees", (0,)))
        for name, loss in zip(term_names(losses), losses, strict=True)
        if "node_features" in loss.reads
    }
    if not degrees:
        return {}
    if config.heads == "shared":
        wanted = {SHARED: max(degrees.values())}
    else:
        first = "n2n" if "n2n" in degrees else next(iter(degrees))
        wanted = {SHARED: degrees.pop(first), **degrees}
    features = train.features
    assert features is not None, "checked when the labels are read"
    mean, std = None, 1.0
    if config.normalize:
        mean = features.mean(dim=0)
        std = (features - mean).square().mean().sqrt().item()
    spreads = [
        degree_spread(train.structures, degree) if config.normalize else 1.0
        for degree in range(1, max(wanted.values()) + 1)
    ]
    return {
        name: FeatureHead(
            student_channels,
            features.shape[1],
            mean=mean,
            std=std,
            spreads=spreads[:highest],
        )
        for name, highest in wanted.items()
    }


def degree_spread(frames: Sequence[LabelledStructure], degree: int) -> float:
    """Return the root mean square of the teacher's coefficients of one degree.

    They have no mean to be taken off: it would point somewhere.
    """
    total, count = 0.0, 0
    for frame in frames:
        if frame.teacher is None or frame.teacher.node_features is None:
            continue
        coefficients = frame.teacher.node_features[:, degree**2 : (degree + 1) ** 2]
        total += float(np.square(coefficients, dtype=np.float64).sum())
        count += coefficients.size
    spread = (total / max(count, 1)) ** 0.5
    return spread if spread > 1e-6 else 1.0


def start_heads(heads: Mapping[str, FeatureHead], init_from: Path | None) -> None:
    """Copy the heads that a run has left beside its student, where they fit."""
    held = {} if init_from is None else _read_heads(init_from)
    for name, head in heads.items():
        start = held.get(name, held.get(SHARED))
        if start is None:
            continue
        weights, targets = start.state_dict(), head.state_dict()
        fitting = {
            key: weights[key]
            for key in weights.keys() & targets.keys()
            if key.endswith("weight") and weights[key].shape == targets[key].shape
        }
        head.load_state_dict(fitting, strict=False)


def heads_state(heads: Mapping[str, FeatureHead]) -> dict[str, Tensor]:
    """Return what ``feature_head.pt`` holds: the shared head, and others by name."""
    return {
        key if name == SHARED else f"own.{name}.{key}": value.cpu()
        for name, head in heads.items()
        for key, value in head.state_dict().items()
    }


def read_head(path: Path | None, *, beside: Path | None = None) -> FeatureHead | None:
    """Return the head P that a run has left, or None where there is none.

    Args:
        path: The file, or None to look beside a model.
        beside: The model whose folder is looked at.

    Raises:
        CheckpointError: The file is damaged or something else.
    """
    if path is not None:
        return _load_heads(path)[SHARED]
    return None if beside is None else _read_heads(beside).get(SHARED)


def _read_heads(model: Path) -> dict[str, FeatureHead]:
    path = model.with_name("feature_head.pt")
    return _load_heads(path) if path.exists() else {}


def _load_heads(path: Path) -> dict[str, FeatureHead]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = sorted({key.split(".")[1] for key in state if key.startswith("own.")})
        shared = {key: state[key] for key in state if not key.startswith("own.")}
        heads = {SHARED: _head_of(shared)}
        for name in names:
            prefix = f"own.{name}."
            heads[name] = _head_of(
                {
                    k.removeprefix(prefix): state[k]
                    for k in state
                    if k.startswith(prefix)
                }
            )
    except Exception as error:
        raise CheckpointError(
            f"{path}: no feature head of a training run ({type(error).__name__}); "
            "expected the feature_head.pt of the run that made the model"
        ) from None
    return heads


def _head_of(state: dict[str, Tensor]) -> FeatureHead:
    n_teacher, n_student = state["linear.weight"].shape
    n_higher = len([key for key in state if key.endswith(".linear.weight")])
    head = FeatureHead(n_student, n_teacher, spreads=[1.0] * n_higher)
    head.load_state_dict(state)
    return head
