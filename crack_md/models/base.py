"""What every model and every teacher answers with."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class Prediction(NamedTuple):
    """Energies and forces of a batch of structures, in eV and Å."""

    energy: Float[Tensor, " structure"]
    """Summed in float64; ``ModelMetadata.energy_reference`` says what it is."""
    forces: Float[Tensor, "atom 3"]
    stress: Float[Tensor, "structure 3 3"] | None
    """eV/Å³ with ASE's sign; None where the model has no stress."""
    node_features: Float[Tensor, "atom coefficient channel"]
    """SO(3) coefficients after the final norm; coefficient 0 is the invariant z."""
    node_energy: Float[Tensor, " atom"] | None = None
    """What each atom contributes, in eV; they add up to the energy of the structure."""


def invariants(prediction: Prediction) -> Float[Tensor, "atom channel"]:
    """Return z, the l = 0 node features that the feature losses compare."""
    return prediction.node_features[:, 0]
