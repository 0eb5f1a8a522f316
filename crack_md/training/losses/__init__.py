"""Loss terms of the distillation objective, one idea per file.

A new loss is one file with a pure function, a term and its section of the training
configuration, and one name in ``crack_md.training.losses.terms``.
"""

from crack_md.training.losses.base import (
    Counts,
    DistillationStep,
    Features,
    LossTerm,
    OneRank,
    Ranks,
    WeightedTerm,
)
from crack_md.training.losses.crack import CrackLoss
from crack_md.training.losses.crmse import CrmseLoss
from crack_md.training.losses.hessian import HessianLoss
from crack_md.training.losses.infonce import Contrast
from crack_md.training.losses.instance import InstanceLoss
from crack_md.training.losses.n2n import NodeToNodeLoss
from crack_md.training.losses.node_energy import NodeEnergyLoss
from crack_md.training.losses.supervised import EnergyLoss, ForceLoss
from crack_md.training.losses.triplet import TripletLoss

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
