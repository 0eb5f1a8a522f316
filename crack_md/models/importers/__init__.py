"""Public EquiformerV2 checkpoints as models of this package.

Two families are read, in all the variants their training codes have written: the CRACK
release, where teacher and student share a file, and EquiformerV2 of OCP and fairchem
v1. No code from a file is run (`crack_md.models.pickles`).
"""

from collections.abc import Sequence
from typing import Any

from crack_md.models.architectures import filled_network
from crack_md.models.force_field import EnergyReference, ForceField, ModelMetadata
from crack_md.models.importers.architecture import (
    Part,
    PublicWeights,
    is_equiformer,
    model_options,
    public_architecture,
    public_weights,
)
from crack_md.models.importers.references import (
    public_elements,
    public_energy_reference,
    public_scale,
)
from crack_md.models.pickles import RawCheckpoint, plain

__all__ = ["Part", "import_public", "is_equiformer"]

_CRACK = "CRACK release (teacher and student in one file)"
_FAIRCHEM = "OCP/fairchem v1 EquiformerV2"
_CRACK_CITATION = (
    "Lim et al.: CRACK, Contrastive Relational-Aware Compression of Knowledge, 2025"
)
_CITATIONS = [
    "Liao, Wood, Das, Smidt: EquiformerV2, ICLR 2024, arXiv:2306.12059",
    "Chanussot et al.: Open Catalyst 2020, ACS Catal. 2021, arXiv:2010.09990",
]


def import_public(
    raw: RawCheckpoint,
    *,
    part: Part = "student",
    energy_reference: EnergyReference | None = None,
    elements: Sequence[int] | None = None,
) -> ForceField:
    """Return the model of a public checkpoint, in eval mode.

    Args:
        raw: the file as read.
        part: which model of a CRACK release; other files hold one only.
        energy_reference: overrides what the file says its energies are.
        elements: overrides the elements that the model was trained on.

    Raises:
        CheckpointError: The file is no EquiformerV2 or contradicts itself.
    """
    weights = public_weights(raw, part=part)
    config = public_architecture(raw, weights)
    scale = public_scale(raw, weights)
    detected = public_energy_reference(raw, weights, scale)
    known = public_elements(scale, detected, n_elements=config.num_elements)
    metadata = ModelMetadata(
        energy_reference=energy_reference or detected,
        elements=tuple(sorted(set(elements))) if elements else known,
        provenance=_provenance(raw, weights, part),
        sha256=raw.sha256,
    )
    network = filled_network(config, weights.tensors, source=str(raw.path))
    return ForceField(network, scale, metadata).eval()


def _provenance(
    raw: RawCheckpoint, weights: PublicWeights, part: Part
) -> dict[str, Any]:
    content = raw.content
    provenance = {
        "source": _CRACK if weights.is_crack else _FAIRCHEM,
        "source_file": raw.path.name,
        "source_sha256": raw.sha256,
        "weights": "moving average" if weights.averaged else "raw",
        "epoch": plain(content.get("epoch")),
        "step": plain(content.get("step")),
        "metrics": plain(content.get("val_metrics")),
        "config": plain(content.get("config")),
        "citation": _CITATIONS,
        "licence": "that of its publisher; not stated in the file",
    }
    if weights.is_crack:
        provenance["part"] = part
        provenance["citation"] = [_CRACK_CITATION, *_CITATIONS]
        provenance["data"] = "OC20, O* subset: E(O*) - E(slab) - E(H2O) + E(H2)"
        if part == "student":
            layers = model_options(raw).get("num_layers", "an unknown number of")
            provenance["teacher"] = f"EquiformerV2, {layers} layers, in the same file"
            provenance["teacher_sha256"] = raw.sha256
        else:
            provenance["note"] = "the force head was trained further for the student"
    return provenance
