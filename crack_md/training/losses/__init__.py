"""Loss terms of the distillation objective, one idea per file.

A new loss is one file with a pure function, a term and its section of the training
configuration, and one name in ``crack_md.training.losses``.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from crack_md.training.losses.base import (
    Counts,
    DistillationStep,
    Features,
    LossTerm,
    OneRank,
    Ranks,
    TrainedOn,
    WeightedTerm,
)
from crack_md.training.losses.crack import CrackConfig, CrackLoss
from crack_md.training.losses.crmse import CrmseConfig, CrmseLoss
from crack_md.training.losses.hessian import HessianConfig, HessianLoss
from crack_md.training.losses.infonce import Contrast
from crack_md.training.losses.instance import InstanceConfig, InstanceLoss
from crack_md.training.losses.n2n import NodeToNodeConfig, NodeToNodeLoss
from crack_md.training.losses.node_energy import NodeEnergyConfig, NodeEnergyLoss
from crack_md.training.losses.supervised import EnergyLoss, ForceLoss, SupervisedConfig
from crack_md.training.losses.triplet import TripletConfig, TripletLoss

__all__ = [
    "Contrast",
    "Counts",
    "CrackLoss",
    "CrmseLoss",
    "DistillationStep",
    "EnergyLoss",
    "Features",
    "ForceLoss",
    "HessianLoss",
    "InstanceLoss",
    "LossTerm",
    "NodeEnergyLoss",
    "NodeToNodeLoss",
    "OneRank",
    "Ranks",
    "TripletLoss",
    "WeightedTerm",
]


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
"""Every kind of loss; a new one is one file, and one name here."""


def term_names(losses: Sequence[LossConfig]) -> list[str]:
    """Return a name for every loss: its kind, the second of a kind numbered."""
    counts: Counter[str] = Counter()
    names = []
    for loss in losses:
        counts[loss.kind] += 1
        number = counts[loss.kind]
        names.append(loss.kind if number == 1 else f"{loss.kind}_{number}")
    return names


def build_terms(losses: Sequence[LossConfig], run: TrainedOn) -> list[WeightedTerm]:
    """Return the loss terms in the order of the file."""
    names = term_names(losses)
    return [
        term
        for loss, name in zip(losses, names, strict=True)
        for term in loss.build_terms(name, run)
    ]
