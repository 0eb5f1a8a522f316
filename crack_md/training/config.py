"""The training configuration: one YAML page, checked before anything is built.

Sections ``student``, ``teacher``, ``data``, ``losses``, ``features``, ``optimizer`` and
``run``. A key that does not exist is refused with its path. Weights and temperatures of
losses have no default: they stand in the file, where a reader looks for them.
"""

from pathlib import Path
from typing import Literal

from ase.data import chemical_symbols
from pydantic import ConfigDict, Field, field_validator, model_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from crack_md.models.equiformer_v2 import EquiformerV2Config
from crack_md.training.loss_config import Label, LossConfig
from crack_md.training.section import Section

SYMBOLS = frozenset(chemical_symbols[1:])


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Architecture(EquiformerV2Config):
    """The fields of EquiformerV2Config, checked by pydantic."""


Part = Literal["embeddings", "blocks", "norm", "delta", "energy_head", "force_head"]
"""Of a network; blocks are copied by their number, the first ones of a deeper model."""


class StudentConfig(Section):
    """The model that is trained."""

    architecture: Architecture
    init_from: Path | None = None
    """A ``student.pt`` whose matching weights are the start (pretrain → fine-tune)."""
    init_parts: tuple[Part, ...] | None = Field(default=None, min_length=1)
    """Which parts of the network are copied from ``init_from``; by default all."""

    @model_validator(mode="after")
    def _parts_have_a_source(self) -> "StudentConfig":
        if self.init_parts is not None and self.init_from is None:
            raise ValueError("init_parts are copied from init_from, which is not given")
        return self


class DataConfig(Section):
    """A labelled dataset, as ``crack-md label`` writes it."""

    path: Path
    validation: Path | None = None
    """A dataset of its own for validation; otherwise the rows with split "val"."""
    leave_out: tuple[str, ...] = ()
    """Elements such as "Ni", or combinations such as "Ni-O", whose frames are not used:
    for labels of a teacher that is wrong there."""
    max_frames: int | None = Field(default=None, ge=1)
    """Train on this many frames only, chosen by the seed (learning curves)."""
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
    """A teacher that labels the frames when training starts, instead of stored labels.

    Frames do not change while training, so each is labelled once and kept in memory.
    """

    kind: Literal["online"]
    spec: str
    """What ``crack-md label --teacher`` takes."""


class FeatureConfig(Section):
    """How node features of the teacher enter `crack` and `n2n`."""

    normalize: bool = False
    """Shift by the mean of every channel, divide by one spread, of the training set."""


class OptimizerConfig(Section):
    """AdamW with warm-up, cosine, clipping and a moving average of weights."""

    lr: float = Field(gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    lr_end_factor: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=100.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)


class RunConfig(Section):
    """Where, how long and on what."""

    folder: Path
    seed: int = 0
    batch_size: int = Field(ge=1)
    """Structures per optimizer step, over all processes and accumulated parts."""
    accumulate: int = Field(default=1, ge=1)
    """Parts that a batch is cut into, where memory is short."""
    max_steps: int | None = Field(default=None, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    """Training ends at the first of both, and the cosine with it."""
    log_every: int = Field(default=20, ge=1)
    validate_every: int = Field(default=500, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    accelerator: str = "auto"
    devices: int = Field(default=1, ge=1)
    num_nodes: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ends(self) -> "RunConfig":
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("give max_steps, max_seconds or both")
        parts = self.accumulate * self.devices * self.num_nodes
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size {self.batch_size} is no multiple of "
                f"accumulate x devices x num_nodes = {parts}"
            )
        return self


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
