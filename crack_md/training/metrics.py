"""Error measures, each beside what no model at all would reach.

Errors are collected per frame and averaged at the end, so that any group of frames
(relaxed ones, one kind, one system) is a selection and not another pass.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crack_md.graph import AtomGraph, sum_over_structures

EFWT_ENERGY_eV = 0.02
EFWT_FORCE = 0.03
"""OC20: a frame counts where |ΔE| < 0.02 eV and the largest |ΔF| < 0.03 eV/Å."""


class FrameErrors(NamedTuple):
    """What the measures need of every frame."""

    energy_error: Float[Tensor, " frame"]
    """Model minus label, eV."""
    energy_spread: Float[Tensor, " frame"]
    """Mean-energy baseline minus label, eV."""
    n_atoms: Int[Tensor, " frame"]
    force_error_sum: Float[Tensor, " frame"]
    """Σ |ΔF| over the components of free atoms, eV/Å."""
    force_sum: Float[Tensor, " frame"]
    """Σ |F| over the same components: the error of zero forces."""
    n_components: Float[Tensor, " frame"]
    largest_force_error: Float[Tensor, " frame"]
    """Largest component, eV/Å."""
    feature_error_sum: Float[Tensor, " frame"]
    """Σ over atoms of the mean |P z_S − z_T| over features."""
    feature_cosine_sum: Float[Tensor, " frame"]
    """Σ over atoms of cos(P z_S, z_T) over features."""


@dataclass(frozen=True)
class Metrics:
    """Mean errors of a group of frames; units in the names (A is Å)."""

    n_frames: int
    energy_mae_meV: float
    energy_mae_meV_per_atom: float
    mean_energy_baseline_meV: float
    mean_energy_baseline_meV_per_atom: float
    force_mae_meV_per_A: float
    zero_force_baseline_meV_per_A: float
    efwt_percent: float
    embedding_mae: float | None
    embedding_cosine: float | None

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the measures by name."""
        return asdict(self)


def force_statistics(
    forces: Float[Tensor, "atom 3"],
    label: Float[Tensor, "atom 3"],
    free: Bool[Tensor, " atom"],
    graph: AtomGraph,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return Σ|ΔF|, Σ|F|, number and largest |ΔF| of free components, per structure."""
    weight = free.to(label.dtype).unsqueeze(1)
    error = (forces - label).abs() * weight
    largest = error.new_zeros(graph.n_structures).scatter_reduce(
        0, graph.batch, error.amax(dim=1), "amax"
    )
    return (
        sum_over_structures(error.sum(dim=1), graph),
        sum_over_structures((label.abs() * weight).sum(dim=1), graph),
        sum_over_structures(3 * weight.squeeze(1), graph),
        largest,
    )


def feature_statistics(
    student: Float[Tensor, "atom channel"],
    teacher: Float[Tensor, "atom channel"],
    graph: AtomGraph,
) -> tuple[Float[Tensor, " structure"], Float[Tensor, " structure"]]:
    """Return Σ over atoms of mean absolute error and cosine, both over features."""
    error = (student - teacher).abs().mean(dim=-1)
    cosine = torch.nn.functional.cosine_similarity(student, teacher, dim=-1)
    return sum_over_structures(error, graph), sum_over_structures(cosine, graph)


def mean_energy_errors(
    residual: Float[Tensor, " frame"], sizes: Int[Tensor, " frame"], *, extensive: bool
) -> Float[Tensor, " frame"]:
    """Return the error of predicting the mean of these frames, eV.

    Args:
        residual: Energies without their element references, eV.
        sizes: Atoms per frame.
        extensive: Predict a mean per atom (total energies) or per frame (adsorption).
    """
    if extensive:
        return (residual / sizes).mean() * sizes - residual
    return residual.mean() - residual


def summarize(
    errors: FrameErrors, chosen: Bool[Tensor, " frame"] | None = None
) -> Metrics:
    """Return the mean errors of the chosen frames."""
    if chosen is not None:
        errors = FrameErrors(*(column[chosen] for column in errors))
    energy, spread = errors.energy_error.abs(), errors.energy_spread.abs()
    components = errors.n_components.sum().clamp_min(1)
    within = (energy < EFWT_ENERGY_eV) & (errors.largest_force_error < EFWT_FORCE)
    n_atoms = errors.n_atoms.sum()
    with_features = bool(errors.feature_cosine_sum.isfinite().all())
    return Metrics(
        n_frames=len(energy),
        energy_mae_meV=1e3 * energy.mean().item(),
        energy_mae_meV_per_atom=1e3 * (energy / errors.n_atoms).mean().item(),
        mean_energy_baseline_meV=1e3 * spread.mean().item(),
        mean_energy_baseline_meV_per_atom=1e3 * (spread / errors.n_atoms).mean().item(),
        force_mae_meV_per_A=1e3 * (errors.force_error_sum.sum() / components).item(),
        zero_force_baseline_meV_per_A=1e3
        * (errors.force_sum.sum() / components).item(),
        efwt_percent=100 * within.double().mean().item(),
        embedding_mae=(
            (errors.feature_error_sum.sum() / n_atoms).item() if with_features else None
        ),
        embedding_cosine=(
            (errors.feature_cosine_sum.sum() / n_atoms).item()
            if with_features
            else None
        ),
    )


def concatenate(parts: Sequence[FrameErrors]) -> FrameErrors:
    """Return the errors of all parts in their order."""
    return FrameErrors(*(torch.cat(column) for column in zip(*parts, strict=True)))
