"""What CRMSE adds to a step of training: chains that move on, and their weight λ.

The contrast is stiff (its curvature is β² times a covariance of energies), so λ has to
be small, and no number suits two molecules. It is set so that the gradient of the
contrast is a share of that of all other losses together.
"""

import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from crack_md.data.batches import Batch
from crack_md.graph import AtomGraph
from crack_md.training.chains import Chains
from crack_md.training.losses.crmse import NAME
from crack_md.training.objective import Objective
from crack_md.training.sampling import seed_step

log = logging.getLogger(__name__)

HOT = 1.0
"""Thermal spreads above the data at which the mean energy of chains is worth a word."""
MEMORY = 0.9
"""Of the logarithm of λ from one time it is found to the next: a batch is a sample."""


class ContrastWeight:
    """λ, from the norms of two gradients.

    Args:
        share: The norm of λ times the contrast's gradient over that of all the rest.
        every: Steps from one time it is found to the next.
        seed: Of the run, for losses that draw.
    """

    def __init__(self, share: float, every: int, *, seed: int = 0) -> None:
        self._share, self._every, self._seed = share, every, seed
        self.log: float | None = None

    def update(self, objective: Objective, batch: Batch, step: int) -> None:
        """Set the objective's weight of the contrast, if it is time to."""
        if step % self._every and self.log is not None:
            return
        seed_step(self._seed, step, batch.graph.positions.device)
        values = objective.values(batch)
        rest = torch.stack(
            [
                objective.weights[name] * value
                for name, value in values.items()
                if name != NAME
            ]
        ).sum()
        others, own = (gradient_norm(loss, objective) for loss in (rest, values[NAME]))
        found = float((self._share * others / own).log())
        if not math.isfinite(found):
            return  # chains at their start are data: there is no contrast yet
        self.log = (
            found if self.log is None else MEMORY * self.log + (1 - MEMORY) * found
        )
        objective.weights[NAME] = math.exp(self.log)


def gradient_norm(loss: Tensor, objective: Objective) -> Tensor:
    """Return the norm of the gradient with respect to all weights."""
    weights = [weight for weight in objective.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    found = [gradient.norm() for gradient in gradients if gradient is not None]
    return torch.stack(found).norm()


class ChainContrast:
    """Moves the chains at every step of training and hands them to the loss.

    Args:
        chains: Of the student.
        graph_of: Returns the graph of all chains.
        weight: Finds λ; None where it is given.
        equilibrate_steps: Of dynamics before the first step of training.
    """

    def __init__(
        self,
        chains: Chains,
        graph_of: Callable[[Chains], AtomGraph],
        *,
        weight: ContrastWeight | None = None,
        equilibrate_steps: int = 0,
    ) -> None:
        self.chains = chains
        self._graph_of, self._weight = graph_of, weight
        self._equilibrate_steps = equilibrate_steps
        self._has_warned = False

    def joined(self, batch: Batch, objective: Objective, step: int) -> Batch:
        """Return the batch with the chains after their next steps."""
        if self._equilibrate_steps and not self.chains.replicas.state.step_count:
            self.chains.advance(self._equilibrate_steps)
        self.chains.advance()
        batch = batch._replace(chains=self._graph_of(self.chains))
        if self._weight is not None:
            self._weight.update(objective, batch, step)
        return batch

    def report(self, objective: Objective) -> dict[str, float]:
        """Return what the chains do, and λ; warn once if they heat up."""
        found = self.chains.report()
        above = found["chain_energy_eV"] / found["chain_energy_std_equipartition_eV"]
        if above > HOT and not self._has_warned:
            self._has_warned = True
            log.warning(
                "the chains lie %.2f eV above the data, %.1f times what heat spreads "
                "them: they do not keep up with the weights, or the model is far off; "
                "if that grows, lower optimizer.lr or the crmse loss's gradient_share",
                found["chain_energy_eV"],
                above,
            )
        return {**found, "crmse_weight": objective.weights[NAME]}

    def state_dict(self, objective: Objective) -> dict[str, Any]:
        """Return what a later start needs."""
        return {
            "chains": self.chains.state_dict(),
            "weight": objective.weights[NAME],
            "log_weight": None if self._weight is None else self._weight.log,
        }

    def load_state_dict(self, state: Mapping[str, Any], objective: Objective) -> None:
        """Go on where such a state was taken."""
        self.chains.load_state_dict(state["chains"])
        objective.weights[NAME] = state["weight"]
        if self._weight is not None:
            self._weight.log = state["log_weight"]
