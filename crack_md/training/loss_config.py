"""The ``losses`` section of a training configuration: one model per kind of loss."""

from typing import Annotated, Literal

from pydantic import Field

from crack_md.training.section import Section


class CrackConfig(Section):
    """Relational InfoNCE on neighboring pairs."""

    kind: Literal["crack"]
    weight: float
    temperature: float = Field(gt=0)
    anchor: Literal["teacher", "student", "both"] = "teacher"
    pairs: Literal["unique", "directed"] = "unique"
    negatives: Literal["structure", "global"] = "structure"
    chunk: int = Field(default=1024, ge=1)
    """Rows of the score matrix that exist at a time."""
    smallest_difference: float = Field(default=1e-3, gt=0)
    """Pairs whose teacher features differ by less are equivalent atoms: left out."""


class NodeToNodeConfig(Section):
    """Squared distance of node features."""

    kind: Literal["n2n"]
    weight: float


class SupervisedConfig(Section):
    """Energies and forces: ``task`` of the dataset, ``output`` of the teacher."""

    kind: Literal["task", "output"]
    energy_weight: float
    force_weight: float
    per_atom: bool = False
    """Divide energy errors by the number of atoms (total energies, mixed sizes)."""
    sigma_eV: float | None = Field(default=None, gt=0)
    """Unit of both errors; by default the energy spread of the training set."""


LossConfig = Annotated[
    CrackConfig | NodeToNodeConfig | SupervisedConfig, Field(discriminator="kind")
]
