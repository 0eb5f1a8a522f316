"""Which frames are worth a label: those the student is unsure of, and a control."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

from crack_md.training.on_policy.config import Selection

ChosenBy = Literal["random", "disagreement"]
Positions = Float[np.ndarray, "atom 3"]


def choose_frames(
    disagreement: Sequence[float],
    starts: Sequence[int],
    positions: Sequence[Positions],
    settings: Selection,
    *,
    random: np.random.Generator,
) -> dict[int, ChosenBy]:
    """Return the chosen frames, by their number, with what chose them.

    The control comes first, from all frames alike, so that the student's error on it is
    that on its own frames. Then come the others by falling disagreement. No two frames
    of a start are chosen that are nearer to each other than `spacing_A`.

    Args:
        disagreement: One for each frame; the larger, the less sure.
        starts: Which structure each frame comes from.
        positions: Å, not wrapped.
        settings: Budget, share of the control, spacing, most of one start.
        random: Draws the control.
    """
    chosen: dict[int, ChosenBy] = {}
    kept: dict[int, list[Positions]] = defaultdict(list)

    def take(frame: int, by: ChosenBy) -> bool:
        near = kept[starts[frame]]
        if any(farthest_move(positions[frame], p) < settings.spacing_A for p in near):
            return False
        near.append(positions[frame])
        chosen[frame] = by
        return True

    n_random = round(settings.budget * settings.random_share)
    for frame in random.permutation(len(starts)).tolist():
        if len(chosen) == n_random:
            break
        take(frame, "random")
    counts: Counter[int] = Counter()
    order = np.argsort(-np.asarray(disagreement, dtype=float), kind="stable")
    for frame in order.tolist():
        if len(chosen) == settings.budget:
            break
        if frame in chosen or counts[starts[frame]] == settings.per_start:
            continue
        if take(frame, "disagreement"):
            counts[starts[frame]] += 1
    return dict(sorted(chosen.items()))


def farthest_move(first: Positions, second: Positions) -> float:
    """Return how far the atom that moved most is from where it was, Å."""
    return float(np.linalg.norm(first - second, axis=1).max())
