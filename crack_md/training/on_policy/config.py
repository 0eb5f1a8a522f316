"""The file of a loop: ``crack-md distil loop.yaml``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from crack_md.input_files import Section
from crack_md.training.config import assign, check_section, read_tree


class RoundTraining(Section):
    """How the student of each round is trained; all else stands in its recipe."""

    steps: int = Field(ge=1)
    """Of the first round, in place of the budget of the recipe."""
    later_steps: int = Field(ge=1)
    """Of every later round, which goes on from the student before it."""
    later_lr_factor: float = Field(default=0.3, gt=0)
    """What the learning rate of the recipe is multiplied by in later rounds."""
    first: tuple[Path, ...] = ()
    """Students that were trained before, one for each of the committee; the first round
    takes them as they are."""
    committee: int = Field(default=1, ge=1)
    """Students with seeds of their own. The spread of their forces says where they are
    unsure; a single student measures how far a frame is from its training data."""
    overrides: tuple[str, ...] = ()
    """Changes of the recipe, such as "optimizer.lr=1e-3"."""

    @model_validator(mode="after")
    def _first_are_the_committee(self) -> "RoundTraining":
        if self.first and len(self.first) != self.committee:
            raise ValueError(
                f"first names {len(self.first)} students; expected {self.committee}, "
                "as many as the committee has"
            )
        return self


class Starts(Section):
    """Structures that exploration starts from; held-out pairs are left out."""

    path: Path
    """Structures, or a recipe of ``crack-md augment``; each round has a seed of its
    own, and so other structures of a recipe."""
    limit: int = Field(default=100, ge=1)
    """Structures per round, drawn at random."""
    teacher: str | None = None
    """For recipes that need one, as those without lattice constants do."""


class Relaxations(Section):
    """Relaxations with the student, frames along them included."""

    steps: int = Field(default=60, ge=1)
    fmax: float = Field(default=0.03, gt=0)
    """eV/Å."""
    spacing_A: float = Field(default=0.03, ge=0)
    """How far some atom has moved since the last frame that was kept."""


class ExplorationDynamics(Section):
    """Langevin dynamics with the student, one run for each start.

    All atoms get the same mass: where they are at equilibrium does not depend on it,
    and a heavy hydrogen allows a long time step.
    """

    steps: int = Field(default=1000, ge=1)
    every: int = Field(default=50, ge=1)
    """Steps from one frame to the next."""
    coldest_K: float = Field(default=300.0, gt=0)
    hottest_K: float = Field(default=1500.0, gt=0)
    timestep_fs: float = Field(default=4.0, gt=0)
    mass_u: float = Field(default=30.0, gt=0)
    friction_per_ps: float = Field(default=5.0, gt=0)

    @model_validator(mode="after")
    def _range_and_frames(self) -> "ExplorationDynamics":
        if self.hottest_K < self.coldest_K:
            raise ValueError("hottest_K is below coldest_K")
        if self.every > self.steps:
            raise ValueError("every is more than steps: there would be no frame")
        return self


class Exploration(Section):
    """What the student does with every start."""

    relax: Relaxations | None = Relaxations()
    dynamics: ExplorationDynamics | None = ExplorationDynamics()
    """From where the relaxation ended, if there is one."""
    together: int = Field(default=32, ge=1)
    """Structures at a time; what is done is kept after each such group."""
    device: str = "auto"

    @model_validator(mode="after")
    def _does_something(self) -> "Exploration":
        if self.relax is None and self.dynamics is None:
            raise ValueError("relax and dynamics are both left out")
        return self


class DivergenceLimits(Section):
    """Beyond these a frame has diverged: it ends its run and is never labelled."""

    largest_force: float = Field(default=30.0, gt=0)
    """eV/Å, norm on one atom."""
    closest: float = Field(default=0.6, gt=0, lt=1)
    """Of the sum of covalent radii, that two atoms must be apart; not below what
    `data.nearest` of the recipe trains on."""
    evaporated_A: float = Field(default=5.0, gt=0)
    """A gap this wide around some atoms, which were together at the start."""
    energy_jump_eV_per_atom: float = Field(default=0.5, gt=0)
    """From one step to the next."""


class FrameSelection(Section):
    """Which frames are labelled."""

    budget: int = Field(ge=1)
    """Labels per round."""
    random_share: float = Field(default=0.2, ge=0, le=1)
    """Part of the budget that is drawn at random from all frames: the control."""
    spacing_A: float = Field(default=0.1, ge=0)
    """Å that some atom must be from where it is in other chosen frames of the start."""
    per_start: int = Field(default=6, ge=1)
    """Most frames of one start that are chosen for their disagreement."""


class Labelling(Section):
    """How the teacher labels them."""

    largest_force: float = Field(default=15.0, gt=0)
    """eV/Å; frames beyond it are dropped, and counted."""
    features: Literal["auto", "invariant", "all", "none"] = "auto"
    """Node features to store: by default if the dataset has them."""
    workers: int = Field(default=1, ge=1)


class Mixing(Section):
    """How much the frames of all rounds count beside the dataset."""

    repeats: int | None = Field(default=None, ge=1)
    """How often a pass over the data takes each of them."""
    share: float | None = Field(default=None, gt=0, lt=1)
    """About this part of a pass, by whole repeats of at least one."""

    @model_validator(mode="after")
    def _is_one(self) -> "Mixing":
        if (self.repeats is None) == (self.share is None):
            raise ValueError("give either repeats or share")
        return self

    def repeats_of(self, n_old: int, n_new: int) -> int:
        """Return how often each new frame counts: share = n r / (n r + old)."""
        if self.repeats is not None:
            return self.repeats
        assert self.share is not None, "one of both is given"
        return max(1, round(self.share / (1 - self.share) * n_old / max(n_new, 1)))


class LoopConfig(Section):
    """Rounds of training, exploring, choosing and labelling."""

    folder: Path
    student: Path
    """A training recipe; its data, folder, seed and budget are replaced."""
    data: Path
    """The dataset that the first round trains on; a held-out test set and the rule of
    its splits come with it."""
    teacher: str
    """As ``crack-md label --teacher`` takes it."""
    rounds: int = Field(default=2, ge=0)
    """Of exploring and labelling; a last training follows."""
    seed: int = Field(default=0, ge=0)
    hold_out: str | None = None
    """Pairs such as Ag-Pd,Cu-Ir; by default those of the dataset's own labelling."""
    train: RoundTraining
    starts: Starts
    explore: Exploration = Exploration()
    limits: DivergenceLimits = DivergenceLimits()
    select: FrameSelection
    label: Labelling = Labelling()
    mix: Mixing = Mixing(repeats=1)
    check_last: bool = True
    """The last student explores as well, for the table; nothing of it is labelled."""
    evaluate_frames: int | None = Field(default=None, ge=1)
    """Measure on so many validation and held-out frames, evenly spaced."""


def load_loop(path: Path, overrides: Sequence[str] = ()) -> LoopConfig:
    """Return the checked configuration of a loop.

    Args:
        path: A YAML file.
        overrides: ``key=value`` assignments, e.g. ``select.budget=50``.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    expected = "keys folder, student, data, teacher, train, starts and select"
    tree = read_tree(path, what="the YAML of a loop", expected=expected)
    for assignment in overrides:
        assign(tree, assignment)
    return check_section(LoopConfig, tree, source=str(path))
