"""Chains beside the steps of a training run, and how long they may push.

The contrast goes on where it should stop. After training on few frames their energies
lie too high beside those of unseen ones; the contrast lowers them, past the point where
both agree, into a well around the training frames. The gap

    g = ⟨U − E⟩ of validation frames − ⟨U − E⟩ of training frames

with U the model's and E the labelled energies, passes through zero there. It is
measured at every validation, and λ is halved each time that it is above zero.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from crack_md.models.force_field import ForceField
from crack_md.training.crmse.chains import Chains
from crack_md.training.data.frames import Batch, Frames
from crack_md.training.loop.objective import Objective
from crack_md.training.losses.crmse import NAME

log = logging.getLogger(__name__)

HOT = 1.0
"""Thermal spreads above the data at which the mean energy of chains is worth a word."""
CUT = 0.5
"""Of λ, where the gap is above zero."""
MOST_FRAMES = 512
"""Of each set, for the gap: enough for an error of a twentieth of the spread."""


def energy_gap(student: ForceField, train: Frames, validation: Frames) -> float:
    """Return ⟨U − E⟩ of validation frames less that of training frames, in eV.

    Args:
        student: in eval mode.
        train: frames that it is trained on.
        validation: frames that it is not.
    """
    return _mean_error(student, validation) - _mean_error(student, train)


def _mean_error(student: ForceField, frames: Frames) -> float:
    chosen = torch.arange(min(len(frames), MOST_FRAMES))
    with torch.no_grad():
        errors = [
            student.energy(batch.graph).double() - batch.labels.energy
            for part in chosen.split(64)
            for batch in (frames.batch(part, device=student.device),)
        ]
    return float(torch.cat(errors).mean())


class ChainContrast:
    """Moves the chains at every step of training and hands them to the loss.

    Args:
        chains: Of the student.
        equilibrate_steps: Of dynamics before the first step of training.
    """

    def __init__(self, chains: Chains, *, equilibrate_steps: int = 0) -> None:
        self.chains = chains
        self._equilibrate_steps = equilibrate_steps
        self._has_warned = False

    def joined(self, batch: Batch) -> Batch:
        """Return the batch with the chains after their next steps."""
        if self._equilibrate_steps and not self.chains.replicas.state.step_count:
            self.chains.advance(self._equilibrate_steps)
        self.chains.advance()
        return batch._replace(chains=self.chains.graph())

    def watch(
        self, objective: Objective, train: Frames, validation: Frames
    ) -> dict[str, float]:
        """Return the gap in meV and λ, which is halved where the gap is above zero.

        Args:
            objective: With the weights that are validated.
            train: Training frames.
            validation: Validation frames.
        """
        gap = energy_gap(objective.student, train, validation)
        if gap > 0:
            objective.weights[NAME] *= CUT
        return {"gap_meV": 1000 * gap, "crmse_weight": objective.weights[NAME]}

    def report(self, objective: Objective) -> dict[str, float]:
        """Return what the chains do, and λ; warn once if they heat up."""
        found = self.chains.report()
        above = found["chain_energy_eV"] / found["chain_energy_std_equipartition_eV"]
        if above > HOT and not self._has_warned:
            self._has_warned = True
            log.warning(
                "the chains lie %.2f eV above the data, %.1f times what heat spreads "
                "them: they do not keep up with the weights, or the model is far off; "
                "if that grows, lower optimizer.lr or the crmse loss's weight",
                found["chain_energy_eV"],
                above,
            )
        return {**found, "crmse_weight": objective.weights[NAME]}

    def state_dict(self, objective: Objective) -> dict[str, Any]:
        """Return what a later start needs."""
        return {
            "chains": self.chains.state_dict(),
            "weight": objective.weights[NAME],
        }

    def load_state_dict(self, state: Mapping[str, Any], objective: Objective) -> None:
        """Go on where such a state was taken."""
        self.chains.load_state_dict(state["chains"])
        objective.weights[NAME] = state["weight"]
