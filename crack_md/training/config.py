"""The training configuration: one YAML page, checked before anything is built.

Sections ``student``, ``teacher``, ``data``, ``losses``, ``features``, ``optimizer`` and
``run``. A key that does not exist is refused with its path. Weights and temperatures of
losses have no default: they stand in the file, where a reader looks for them.
"""

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from ase.data import chemical_symbols
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from crack_md.models.architectures import ARCHITECTURES, entry_of
from crack_md.models.network import Architecture
from crack_md.section import Section
from crack_md.training.loss_config import (
    ContrastConfig,
    CrmseConfig,
    Label,
    LossConfig,
    NodeEnergyConfig,
    term_names,
)
from crack_md.training.run_config import OptimizerConfig, RunConfig

SYMBOLS = frozenset(chemical_symbols[1:])


_CHECKED = {
    entry.config: TypeAdapter(
        pydantic_dataclass(
            entry.config,
            frozen=True,
            config=ConfigDict(extra="forbid", allow_inf_nan=False),
        )
    )
    for entry in ARCHITECTURES.values()
}


def _checked_architecture(options: Any) -> Any:
    """Return the options as those of the architecture that they name."""
    if not isinstance(options, dict):
        return options
    kind = entry_of(options).config
    checked = _CHECKED[kind].validate_python(options)
    # the plain class: pydantic's copy of it has the same name, and cannot be pickled
    return kind(**{one.name: getattr(checked, one.name) for one in fields(kind)})


Part = Literal["embeddings", "blocks", "norm", "delta", "energy_head", "force_head"]
"""Of a network; blocks are copied by their number, the first ones of a deeper model."""


class StudentConfig(Section):
    """The model that is trained."""

    architecture: Annotated[
        SerializeAsAny[Architecture], BeforeValidator(_checked_architecture)
    ]
    """``name`` and the options of that architecture."""
    init_from: Path | None = None
    """A ``student.pt`` whose matching weights are the start (pretrain → fine-tune)."""
    init_parts: tuple[Part, ...] | None = Field(default=None, min_length=1)
    """Which parts of the network are copied from ``init_from``; by default all."""

    @model_validator(mode="after")
    def _parts_have_a_source(self) -> "StudentConfig":
        if self.init_parts is not None and self.init_from is None:
            raise ValueError("init_parts are copied from init_from, which is not given")
        return self


class ReplayConfig(Section):
    """A further labelled set to train on, such as frames of the student's own runs."""

    path: Path
    repeats: int = Field(default=1, ge=1)
    """How often a pass over the data takes each of its frames."""


class DataConfig(Section):
    """A labelled dataset, as ``crack-md label`` or ``crack-md pack`` writes it."""

    path: Path
    replay: tuple[ReplayConfig, ...] = ()
    """Sets whose training frames stand beside those of the first; validation stays."""
    validation: Path | None = None
    """A dataset of its own for validation; otherwise the rows with split "val"."""
    leave_out: tuple[str, ...] = ()
    """Elements such as "Ni", or combinations such as "Ni-O", whose frames are not used:
    for labels of a teacher that is wrong there."""
    nearest: float | None = Field(default=None, gt=0, lt=1)
    """Frames with two atoms nearer than this share of the sum of their covalent radii
    are not used: there the short-range repulsion speaks, not the teacher."""
    largest_force: float | None = Field(default=None, gt=0)
    """eV/Å; frames with a force beyond it are not used: steep walls would take most of
    what a small student can learn."""
    max_frames: int | None = Field(default=None, ge=1)
    """Train on this many frames of the first set only, chosen by the seed (learning
    curves)."""
    validation_frames: int | None = Field(default=None, ge=1)
    """Validate on this many frames only: validation costs time too."""

    @field_validator("leave_out")
    @classmethod
    def _known_elements(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            unknown = [symbol for symbol in entry.split("-") if symbol not in SYMBOLS]
            if unknown:
                raise ValueError(f"'{unknown[0]}' in '{entry}' is no element")
        return entries


class OnlineTeacher(Section):
    """A teacher that labels the frames itself, instead of stored labels."""

    kind: Literal["online"]
    spec: str
    """What ``crack-md label --teacher`` takes."""
    labels: Literal["start", "step"] = "start"
    """Label every frame once when training starts, and keep the labels in memory and in
    the run folder; or ask at every step about the frames drawn, and keep nothing."""
    jacobian_rows: int = Field(default=8, ge=1)
    """Rows of the force Jacobian per structure that ``start`` keeps, if a loss draws
    from them; each takes two more answers. ``step`` asks for what a step needs."""


class FeatureConfig(Section):
    """How node features of the teacher enter the losses that compare them."""

    normalize: bool = False
    """Shift by the mean of every channel, divide by one spread, of the training set.
    Degrees above 0 are divided by their own spread and not shifted."""
    heads: Literal["shared", "per_term"] = "shared"
    """One linear head P for all losses on features (the paper), or one for each."""


class CardConfig(Section):
    """What the exported student says about itself."""

    licence: str = "not stated"
    citation: str = "CRACK, and the teacher named in this file"


class TrainConfig(Section):
    """One run of ``crack-md train``."""

    student: StudentConfig
    data: DataConfig
    losses: tuple[LossConfig, ...] = Field(min_length=1)
    optimizer: OptimizerConfig
    run: RunConfig
    teacher: OnlineTeacher | None = None
    """Without it the labels of the dataset are the teacher."""
    features: FeatureConfig = FeatureConfig()
    card: CardConfig = CardConfig()

    @model_validator(mode="after")
    def _parts_see_what_losses_need(self) -> "TrainConfig":
        for number, loss in enumerate(self.losses):
            if self.run.accumulate > 1 and _sees_whole_batch(loss):
                raise ValueError(
                    f"run.accumulate {self.run.accumulate} cuts a batch into parts, "
                    f"but losses.{number} ({loss.kind}) compares all its structures "
                    "with each other (negatives: global, per_element_shift); use "
                    "accumulate: 1, more devices, or the loss without this option"
                )
        return self

    @model_validator(mode="after")
    def _student_has_the_degrees(self) -> "TrainConfig":
        degree = self.student.architecture.feature_degree
        for number, loss in enumerate(self.losses):
            highest = max(getattr(loss, "degrees", (0,)))
            if highest > degree:
                raise ValueError(
                    f"losses.{number}.degrees go up to {highest}, but the features of "
                    f"student.architecture go up to {degree}"
                )
        return self

    @model_validator(mode="after")
    def _labels_count_once(self) -> "TrainConfig":
        names = term_names(self.losses)
        for again in ("task_2", "output_2"):
            if again in names:
                kind = again.removesuffix("_2")
                raise ValueError(
                    f"losses.{names.index(again)} is a second loss of kind '{kind}'; "
                    "energies and forces are weighted in one"
                )
        return self

    @model_validator(mode="after")
    def _chains_can_run(self) -> "TrainConfig":
        if self.crmse is None:
            return self
        names = term_names(self.losses)
        if "crmse_2" in names:
            raise ValueError("a second loss of kind 'crmse'; the chains are one set")
        if not {"task", "output"} & set(names):
            raise ValueError(
                "a loss of kind 'crmse' alone leaves the zero of energy open; add "
                "one of kind 'task' or 'output'"
            )
        if self.student.architecture.forces != "gradient":
            raise ValueError(
                "a loss of kind 'crmse' needs student.architecture.forces: gradient; "
                "direct forces do not sample exp(-U/kT)"
            )
        if self.run.accumulate * self.run.n_ranks > 1:
            raise ValueError(
                "a loss of kind 'crmse' runs its chains in one process; use "
                "run.devices: 1, run.num_nodes: 1 and run.accumulate: 1"
            )
        return self

    @property
    def crmse(self) -> CrmseConfig | None:
        """Return the settings of chains, where a loss contrasts the data with them."""
        found = [loss for loss in self.losses if isinstance(loss, CrmseConfig)]
        return found[0] if found else None

    @property
    def highest_degree(self) -> int:
        """Return the highest degree of node features that a loss compares."""
        return max(max(getattr(loss, "degrees", (0,))) for loss in self.losses)

    @property
    def needs_features(self) -> bool:
        """Return whether a loss compares node features."""
        return self.needs("node_features")

    @property
    def needs_teacher(self) -> bool:
        """Return whether a loss needs any label of a teacher."""
        return any(loss.reads for loss in self.losses)

    def needs(self, label: Label) -> bool:
        """Return whether a loss reads this label of the teacher."""
        return any(label in loss.reads for loss in self.losses)


def _sees_whole_batch(loss: LossConfig) -> bool:
    if isinstance(loss, ContrastConfig):
        return loss.negatives == "global"
    return isinstance(loss, NodeEnergyConfig) and loss.per_element_shift
