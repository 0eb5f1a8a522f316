"""The stages that choose frames and ask the teacher about them."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from crack_md.data.labelling import (
    FeatureChoice,
    LabelRequest,
    label_structures,
    labels_by,
)
from crack_md.data.readers import read_structures
from crack_md.errors import DataError
from crack_md.models.checkpoint import load_model
from crack_md.progress import show_progress
from crack_md.training.on_policy.config import FrameSelection
from crack_md.training.on_policy.folder import (
    Loop,
    RoundFolder,
    Stopwatch,
    count,
    sound_frames,
    write_rows,
)
from crack_md.training.on_policy.student import errors_on

ChosenBy = Literal["random", "disagreement"]
Positions = Float[np.ndarray, "atom 3"]


def choose_frames(
    disagreement: Sequence[float],
    starts: Sequence[int],
    positions: Sequence[Positions],
    settings: FrameSelection,
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


def select_round(loop: Loop, number: int) -> None:
    """Choose frames of a round, unless that is done."""
    here = loop.folder.round(number)
    if here.record("select") is not None:
        return
    frames = list(sound_frames(here.explored))
    chosen = choose_frames(
        [frame.info["disagreement"] for frame in frames],
        [int(frame.info["start"]) for frame in frames],
        [frame.positions for frame in frames],
        loop.config.select,
        random=np.random.default_rng([loop.config.seed, number, 1]),
    )
    for place, by in chosen.items():
        frames[place].info["chosen_by"] = by
    if not here.selected.exists():
        write_rows(here.selected, [frames[place] for place in chosen])
    values = [frames[place].info["disagreement"] for place in chosen]
    numbers = {
        "n_selected": len(chosen),
        "n_random": list(chosen.values()).count("random"),
        "lowest_disagreement": min(values, default=None),
        "highest_disagreement": max(values, default=None),
    }
    here.write("select", numbers)


def label_round(loop: Loop, number: int) -> None:
    """Label the chosen frames, and measure the student on them, unless that is done."""
    here = loop.folder.round(number)
    if here.record("label") is not None:
        return
    n_selected = count(here.selected)
    loop.say(f"round {number}: labelling {n_selected} frames")
    with (
        Stopwatch(here, "label") as watch,
        show_progress("labelling", n_selected, quiet=loop.quiet) as show,
    ):

        def report(done: int) -> None:
            watch.note()
            show(done)

        if not here.labelled.exists() and n_selected:
            label_structures(
                [here.selected],
                here.labelled,
                teacher=loop.config.teacher,
                split=loop.rule,
                wanted=LabelRequest(_features(loop)),
                largest_force=loop.config.label.largest_force,
                workers=loop.config.label.workers,
                report=report,
            )
        seconds = round(watch.seconds, 1)
    n_labelled = count(here.labelled)
    if n_labelled:
        _compare_teachers(loop, number, here)
    numbers = {
        "n_labelled": n_labelled,
        "n_dropped": n_selected - n_labelled,
        "own": _own_errors(loop, here) if n_labelled else {},
        "seconds": seconds,
    }
    here.write("label", numbers)


def _own_errors(loop: Loop, here: RoundFolder) -> dict[str, Any]:
    """Return the student's errors on its own frames, which it was not trained on.

    Raises:
        DataError: A frame is not one to train on.
    """
    frames = loop.read(here.labelled).structures
    if any(one.split != "train" for one in frames):
        raise DataError(f"{here.labelled} holds frames that test the student")
    by = [atoms.info["chosen_by"] for atoms in read_structures(here.labelled)]
    student = load_model(here.student)
    parts = {"all": list(frames)}
    for name in ("random", "disagreement"):
        parts[name] = [f for f, other in zip(frames, by, strict=True) if other == name]
    return {name: errors_on(student, part) for name, part in parts.items()}


def _features(loop: Loop) -> FeatureChoice:
    if loop.config.label.features != "auto":
        return loop.config.label.features
    return "invariant" if loop.base.has_features else "none"


def _compare_teachers(loop: Loop, number: int, here: RoundFolder) -> None:
    """Say so where old and new labels come from different teachers."""
    old = labels_by(loop.base.metadata)
    new = labels_by(loop.read(here.labelled).metadata)
    if old[1] and new[1] != old[1]:
        loop.say(
            f"round {number}: new labels are by {new[0]} ({new[1][:8]}), those of "
            f"{loop.config.data} by {old[0]} ({old[1][:8]}): their energies must agree"
        )
