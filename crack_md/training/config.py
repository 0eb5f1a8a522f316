"""The training configuration: one YAML page, checked before anything is built.

Sections ``student``, ``teacher``, ``data``, ``losses``, ``features``, ``optimizer`` and
``run``. A key that does not exist is refused with its path. Weights and temperatures of
losses have no default: they stand in the file, where a reader looks for them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from ase.data import chemical_symbols
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass

from crack_md.errors import ConfigError
from crack_md.input_files import AnySection, Section, parse_yaml, read_yaml
from crack_md.models.architectures import ARCHITECTURES, entry_of
from crack_md.models.architectures.molecular import MolecularConfig
from crack_md.models.network import Architecture
from crack_md.training.losses import LossConfig, term_names
from crack_md.training.losses.base import Label
from crack_md.training.losses.crmse import CrmseConfig
from crack_md.training.losses.hessian import HessianConfig


class OptimizerConfig(Section):
    """Steps with warm-up, cosine, clipping and a moving average of weights."""

    name: Literal["adamw", "muon"] = "adamw"
    """Muon makes the steps of matrices orthogonal; all else it moves as AdamW does."""
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
    batch_size: int | None = Field(default=None, ge=1)
    """Structures per optimizer step, over all processes and accumulated parts."""
    atoms_per_batch: int | None = Field(default=None, ge=1)
    """About so many atoms per optimizer step, in place of ``batch_size``."""
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
    compile: bool = False
    """Evaluate the student by compiled code (on CPUs, in float32): minutes of a C++
    compiler at the first step, once for an architecture and a machine."""
    accelerator: Literal["auto", "cpu", "cuda", "gpu"] = "auto"
    """"auto" takes GPUs where there are some; "gpu" is another word for "cuda"."""
    devices: int = Field(default=1, ge=1)
    num_nodes: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ends(self) -> "RunConfig":
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("give max_steps, max_seconds or both")
        if (self.batch_size is None) == (self.atoms_per_batch is None):
            raise ValueError("give either batch_size or atoms_per_batch")
        parts = self.accumulate * self.n_ranks
        if self.batch_size is not None and self.batch_size < parts:
            raise ValueError(
                f"batch_size {self.batch_size} is less than "
                f"accumulate x devices x num_nodes = {parts}: parts would be empty"
            )
        return self

    @model_validator(mode="after")
    def _compiles_for_processors(self) -> "RunConfig":
        if self.compile and (
            self.precision != "float32" or self.accelerator in ("cuda", "gpu")
        ):
            raise ValueError(
                "compile is for processors, in float32: leave it out, or use "
                "accelerator: cpu and precision: float32"
            )
        return self

    @property
    def n_ranks(self) -> int:
        """Return the number of processes."""
        return self.devices * self.num_nodes

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """Return the precision of matrix products, None for that of the weights."""
        return torch.bfloat16 if self.precision == "bfloat16" else None


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
    store: Path | None = None
    """A folder for the frames and their graphs, mapped into memory and shared by all
    processes: for sets that are larger than memory. Otherwise each holds all frames."""
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
    def _something_is_learned(self) -> "TrainConfig":
        if not any(
            getattr(loss, name, None)
            for loss in self.losses
            for name in ("weight", "energy_weight", "force_weight")
        ):
            raise ValueError(
                "every loss has weight 0: nothing would be learned; give one a weight"
            )
        return self

    @model_validator(mode="after")
    def _parts_see_what_losses_need(self) -> "TrainConfig":
        for number, loss in enumerate(self.losses):
            if self.run.accumulate > 1 and loss.sees_whole_batch:
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
    def _compiled_code_serves(self) -> "TrainConfig":
        if not self.run.compile:
            return self
        if isinstance(self.student.architecture, MolecularConfig):
            raise ValueError(
                "run.compile needs a student that is a function of edges, and "
                "architecture 'molecular' is none; leave run.compile out"
            )
        gradient = self.student.architecture.forces == "gradient"
        for number, loss in enumerate(self.losses):
            if isinstance(loss, HessianConfig) and gradient and not loss.differences:
                raise ValueError(
                    f"run.compile has no derivatives of forces, which losses.{number} "
                    "(hessian) takes; give it differences: true, or leave run.compile "
                    "out"
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


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Return the checked configuration.

    Args:
        path: A YAML file.
        overrides: ``section.key=value`` assignments; the value is read as YAML, and a
            number in the path is a position in a list.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    tree = read_tree(path)
    for assignment in overrides:
        assign(tree, assignment)
    return check_config(tree, source=str(path))


def check_config(tree: Any, *, source: str) -> TrainConfig:
    """Return the configuration, or raise one ConfigError that names every bad key."""
    return check_section(TrainConfig, tree, source=source)


def check_section(kind: type[AnySection], tree: Any, *, source: str) -> AnySection:
    """Return a tree as a section, or raise one ConfigError that names every bad key."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{source}: {one_line(error)}") from None


def dump_config(config: Section) -> str:
    """Return the resolved configuration as YAML, every default spelled out."""
    tree = config.model_dump(mode="json")
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def read_tree(
    path: Path,
    *,
    what: str = "a training YAML",
    expected: str = "sections student, data, losses, optimizer and run",
) -> dict[str, Any]:
    """Return the content of a YAML file that is a mapping.

    Raises:
        ConfigError: The file is missing, not YAML, or something else.
    """
    tree = read_yaml(path, what=what)
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected {expected}, found {type(tree).__name__}")
    return tree


def assign(tree: Any, assignment: str) -> None:
    """Change one place of a tree, as ``--set section.key=value`` says.

    Raises:
        ConfigError: There is no such place, or the value is not YAML.
    """
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"--set {assignment}: expected section.key=value, e.g. optimizer.lr=1e-4"
        )
    value = parse_yaml(text, where=f"--set {key}")
    *parents, last = key.strip().split(".")
    place = tree
    try:
        for name in parents:
            if isinstance(place, dict):
                place = place.setdefault(name, {})
            else:
                place = place[int(name)]
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (TypeError, ValueError, IndexError, AttributeError):
        raise ConfigError(f"--set {assignment}: there is no place '{key}'") from None


def one_line(error: ValidationError) -> str:
    """Return every bad key with its path and what was found there."""
    problems = []
    places = [item["loc"] for item in error.errors()]
    for item in error.errors():
        place = item["loc"]
        if any(other[: len(place)] == place != other for other in places):
            continue  # a consequence of the error inside it
        path = ".".join(str(part) for part in item["loc"]) or "the file"
        given = item["input"]
        shown = "" if isinstance(given, Mapping | list) else f" (found {given!r})"
        problems.append(f"{path}: {item['msg']}{shown}")
    return "; ".join(problems)
