"""The ``losses`` section of a training configuration: one model per kind of loss."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from crack_md.input_files import Section

Label = Literal["energy", "node_features", "node_energy", "jacobian"]
"""What a loss may read of the teacher."""


Degrees = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)]


class ContrastConfig(Section):
    """InfoNCE: what is contrasted with what, and how sharply."""

    reads: ClassVar[tuple[Label, ...]] = ("node_features",)

    weight: float
    temperature: float = Field(gt=0)
    anchor: Literal["teacher", "student", "both"] = "teacher"
    """Whose rows are compared with all of the other's."""
    negatives: Literal["structure", "global"] = "structure"
    """Contrast within each structure, or with all structures of all processes."""
    chunk: int = Field(default=1024, ge=1)
    """Rows of a pool's score matrix that exist at a time, at most."""
    sample: int | None = Field(default=None, ge=2)
    """Contrast with this many random candidates of the same pool, weighted to stand for
    all of them: an estimate of the sum in the logarithm, for large pools."""
    same_elements: bool = False
    """Contrast with the same element, or pair of elements, only: negatives that cannot
    be told apart by what they are made of."""


class CrackConfig(ContrastConfig):
    """Relational InfoNCE on neighboring pairs."""

    kind: Literal["crack"]
    pairs: Literal["unique", "directed"] = "unique"
    smallest_difference: float = Field(default=1e-3, gt=0)
    """Pairs whose teacher features differ by less are equivalent atoms: left out."""
    degrees: Degrees = (0,)
    """Degrees whose relations are compared: 0 for CRACK, 0 to 2 for ARK. Above 0 the
    teacher must share the student's architecture."""

    @model_validator(mode="after")
    def _turns_together(self) -> "CrackConfig":
        if self.negatives == "global" and any(self.degrees):
            raise ValueError(
                "degrees above 0 turn with their structure and compare within it only; "
                "use negatives: structure"
            )
        return self


class InstanceConfig(ContrastConfig):
    """InfoNCE on atoms."""

    kind: Literal["instance"]


class NodeToNodeConfig(Section):
    """Squared distance of node features."""

    reads: ClassVar[tuple[Label, ...]] = ("node_features",)

    kind: Literal["n2n"]
    weight: float
    degrees: Degrees = (0,)
    """Squared distances of these degrees, added up."""


class NodeEnergyConfig(Section):
    """Squared error of the energies of single atoms, (ε_S − ε_T)²/σ²."""

    reads: ClassVar[tuple[Label, ...]] = ("node_energy",)

    kind: Literal["node_energy"]
    weight: float
    sigma_eV: float | None = Field(default=None, gt=0)
    """σ; by default the spread of the teacher's values around their element's mean, so
    that 1 is what a student reaches that knows the elements and nothing else. The
    public code has weight 0.5 and σ = 2.887/77.8 eV."""
    per_element_shift: bool = False
    """Leave a constant per element out of the comparison: for teachers of another
    architecture, whose zero of an atom's energy is another one."""


class TripletConfig(Section):
    """Angles between the relations of one atom to two neighbors."""

    reads: ClassVar[tuple[Label, ...]] = ("node_features",)

    kind: Literal["triplet"]
    weight: float
    partners: int = Field(default=8, ge=1)
    """Each neighbor forms angles with this many others, the next in distance."""
    error: Literal["smooth_l1", "mse"] = "smooth_l1"
    """Of the cosines of the angles; smooth_l1 is d²/2 up to 1, and linear above."""
    smallest_difference: float = Field(default=1e-3, gt=0)
    """Neighbors whose teacher features differ by less from the atom's are left out."""


class HessianConfig(Section):
    """Sampled rows of the force Jacobian, in units of σ/Å²."""

    reads: ClassVar[tuple[Label, ...]] = ("jacobian",)

    kind: Literal["hessian"]
    weight: float
    rows: int = Field(default=1, ge=1)
    """Rows per structure and step, drawn from those that the labels hold."""
    sigma_eV: float | None = Field(default=None, gt=0)
    """σ; by default the energy spread of the training set."""
    differences: bool = False
    """Move atoms even where forces are a gradient (direct forces leave no choice): two
    more passes per row. On the symmetric sites of perfect crystals the norms of the
    network bend sharply within 0.01 Å; differences look past that, as phonons do."""
    step_A: float = Field(default=0.01, gt=0)
    """How far atoms are moved, in Å."""


class SupervisedConfig(Section):
    """Energies and forces: ``task`` of the dataset, ``output`` of the teacher."""

    kind: Literal["task", "output"]
    energy_weight: float
    force_weight: float
    per_atom: bool = False
    """Divide energy errors by the number of atoms (total energies, mixed sizes)."""
    sigma_eV: float | None = Field(default=None, gt=0)
    """Unit of both errors; by default the energy spread of the training set."""

    @property
    def reads(self) -> tuple[Label, ...]:
        """Return what is read of the teacher: nothing where the dataset is."""
        return () if self.kind == "task" else ("energy",)


class CrmseConfig(Section):
    """Raise the energy of what the student's own dynamics drifts into.

    Beside losses on energies and forces, which alone fix the zero of energy; for
    gradient forces, since others do not sample exp(−U/kT).
    """

    reads: ClassVar[tuple[Label, ...]] = ()

    kind: Literal["crmse"]
    temperature_K: float = Field(gt=0)
    """Of the data, and so of the chains; MD17's molecules are hotter than its 500 K."""
    weight: float | None = Field(default=None, gt=0)
    """λ; give it, or ``gradient_share``."""
    gradient_share: float | None = Field(default=None, gt=0, le=1)
    """λ follows from this: the norm of its gradient over that of the other losses."""
    balance_every: int = Field(default=10, ge=1)
    """Steps after which λ is found anew; each costs one more backward pass."""
    chains: int = Field(default=32, ge=1)
    steps_per_update: int = Field(default=5, ge=1)
    """Steps of dynamics per step of training."""
    equilibrate_steps: int = Field(default=200, ge=0)
    """Steps of dynamics before the first step of training."""
    timestep_fs: float = Field(default=0.5, gt=0)
    friction_per_ps: float = Field(default=10.0, gt=0)

    @model_validator(mode="after")
    def _has_one_weight(self) -> "CrmseConfig":
        if (self.weight is None) == (self.gradient_share is None):
            raise ValueError("give either weight or gradient_share")
        return self


LossConfig = Annotated[
    CrackConfig
    | CrmseConfig
    | HessianConfig
    | InstanceConfig
    | NodeEnergyConfig
    | NodeToNodeConfig
    | SupervisedConfig
    | TripletConfig,
    Field(discriminator="kind"),
]


def term_names(losses: Sequence[LossConfig]) -> list[str]:
    """Return a name for every loss: its kind, the second of a kind numbered."""
    counts: Counter[str] = Counter()
    names = []
    for loss in losses:
        counts[loss.kind] += 1
        number = counts[loss.kind]
        names.append(loss.kind if number == 1 else f"{loss.kind}_{number}")
    return names
