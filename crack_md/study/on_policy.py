"""Methods whose students choose some of their training frames by what they come to."""

from collections.abc import Mapping
from typing import Any

from crack_md.errors import ConfigError
from crack_md.training.config import TrainConfig, check_section
from crack_md.training.on_policy.config import LoopConfig

RECIPE = "recipe.yaml"
"""In the folder of a run: how its rounds train."""
OF_THE_STUDY = ("folder", "student", "data", "seed", "train", "check_last")


def plan_loop(config: TrainConfig, section: Any, *, source: str) -> LoopConfig:
    """Return the loop that spends what a recipe may spend: its steps and its labels.

    All rounds share the steps alike, and the first trains on as many frames less as the
    student will choose: so all methods have the same number of steps and labels.

    Args:
        config: The recipe of the method, with the folder of its run.
        section: ``on_policy`` of the method: a loop without `OF_THE_STUDY`.
        source: What to call it in errors.

    Raises:
        ConfigError: The section is no loop, or there are no steps or frames to share.
    """
    if not isinstance(section, Mapping):
        raise ConfigError(f"{source}: on_policy: expected a mapping, found {section!r}")
    for key in OF_THE_STUDY:
        if key in section:
            raise ConfigError(f"{source}: the study sets on_policy.{key}; remove it")
    folder = config.run.folder
    given = {
        "folder": str(folder),
        "student": str(folder / RECIPE),
        "data": str(config.data.path),
        "seed": config.run.seed,
        "train": {"steps": 1, "later_steps": 1},
        "check_last": False,
    }
    loop = check_section(
        LoopConfig, {**section, **given}, source=f"{source}, on_policy"
    )
    steps, rounds = config.run.max_steps, loop.rounds
    if rounds < 1 or loop.mix.repeats is None:
        raise ConfigError(
            f"{source}: on_policy: give rounds of 1 or more, and mix.repeats; a share "
            "would count the whole set, not data.max_frames"
        )
    if steps is None or steps <= rounds:
        raise ConfigError(
            f"{source}: {rounds + 1} rounds share the steps of an on-policy "
            f"method; give run.max_steps, and more than {rounds}"
        )
    later = steps // (rounds + 1)
    shared = {"steps": steps - rounds * later, "later_steps": later}
    loop = loop.model_copy(update={"train": loop.train.model_copy(update=shared)})
    n_frames, n_own = config.data.max_frames, rounds * loop.select.budget
    if n_frames is None or n_frames <= n_own:
        raise ConfigError(
            f"{source}: the {n_own} frames that an on-policy student chooses count "
            f"among data.max_frames; give more than these, found {n_frames}"
        )
    return loop


def first_recipe(config: TrainConfig, loop: LoopConfig) -> TrainConfig:
    """Return the recipe that all rounds train by, with the frames of the first."""
    assert config.data.max_frames is not None, "checked when the study is planned"
    n_first = config.data.max_frames - loop.rounds * loop.select.budget
    data = config.data.model_copy(update={"max_frames": n_first})
    return config.model_copy(update={"data": data})
