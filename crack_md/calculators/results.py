"""From what models predict to what ASE calls results."""

from collections.abc import Sequence

import numpy as np
from ase.stress import full_3x3_to_voigt_6_stress
from jaxtyping import Float

from crack_md.calculators.batched import Results
from crack_md.errors import StructureError
from crack_md.models.base import Prediction

Arrays = dict[str, np.ndarray]
"""Energy, energies, forces and perhaps stress of one structure, by one model."""


def arrays_of(
    prediction: Prediction,
    sizes: Sequence[int],
    has_stress: Sequence[bool],
    *,
    domain_distances: Float[np.ndarray, " structure"] | None = None,
) -> list[Arrays | Exception]:
    """Return what ASE calls results of every structure, or why they are unusable.

    They are the energy and its parts by atoms ("energies"), forces and stress.

    Args:
        prediction: of a batch.
        sizes: atoms of its structures.
        has_stress: which of them have a meaningful stress.
        domain_distances: how near their atoms are, measured by training.
    """
    energies = prediction.energy.double().cpu().numpy()
    forces = prediction.forces.double().cpu().numpy()
    atomic = prediction.node_energy
    parts = None if atomic is None else atomic.double().cpu().numpy()
    tensors = prediction.stress
    stress = None if tensors is None else tensors.double().cpu().numpy()
    ends = np.cumsum(sizes)
    found = []
    for row, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        arrays = {
            "energy": energies[row, ...],
            "forces": forces[end - size : end].copy(),
        }
        if parts is not None:
            arrays["energies"] = parts[end - size : end].copy()
        if stress is not None and has_stress[row]:
            arrays["stress"] = full_3x3_to_voigt_6_stress(stress[row])
        if domain_distances is not None:
            arrays["domain_distance"] = domain_distances[row, ...]
        found.append(_finite(arrays))
    return found


def joined_results(members: Sequence[Arrays | Exception]) -> Results | Exception:
    """Return the mean of a committee's answers and their spread, or an error of one."""
    arrays: list[Arrays] = []
    for member in members:
        if isinstance(member, Exception):
            return member
        arrays.append(member)
    results: Results = {
        name: np.mean([m[name] for m in arrays if name in m], axis=0)
        for name in arrays[0]
    }
    if "domain_distance" in results:
        results["domain_distance"] = float(results["domain_distance"])
    results["energy"] = float(results["energy"])
    results["free_energy"] = results["energy"]
    if len(arrays) > 1:
        results["energy_std"] = float(np.std([m["energy"] for m in arrays], ddof=1))
        results["forces_std"] = np.std([m["forces"] for m in arrays], axis=0, ddof=1)
    return results


def _finite(arrays: Arrays) -> Arrays | Exception:
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if not wrong:
        return arrays
    return StructureError(
        f"the model returned {' and '.join(wrong)} that are not finite; the "
        "structure is probably far from everything the model has seen"
    )
