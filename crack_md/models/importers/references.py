"""What the energies of a public checkpoint are: scale, references, elements."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crack_md.errors import CheckpointError
from crack_md.models.force_field import EnergyReference, EnergyScale
from crack_md.models.importers.architecture import PublicWeights, as_mapping
from crack_md.models.pickles import RawCheckpoint

# The 55 elements of the OC20 surfaces and the oxygen of its adsorbates.
OC20_ELEMENTS = (
    *(1, 5, 6, 7, 8, 11, 13, 14, 15, 16, 17),
    *range(19, 35),
    *range(37, 53),
    55,
    *range(72, 84),
)
_ENERGY = ("energy", "target")
_FORCES = ("forces", "grad_target")


def public_scale(raw: RawCheckpoint, weights: PublicWeights) -> EnergyScale:
    """Return how raw outputs become eV and eV/Å in the public code."""
    stored = as_mapping(raw.content.get("normalizers"))
    normalizers = stored or _configured_normalizers(_dataset(raw))
    mean, std = _moments(raw, _entry(normalizers, _ENERGY))
    force_mean, force_std = _moments(raw, _entry(normalizers, _FORCES))
    if force_mean != 0.0:
        raise CheckpointError(
            f"'{raw.path}' adds {force_mean} eV/Å to every force component; expected a "
            "force normaliser with mean 0"
        )
    if not normalizers and _dataset(raw).get("normalize_labels", True):
        warnings.warn(
            f"'{raw.path}' holds no normaliser; its outputs are taken as eV and eV/Å",
            stacklevel=2,
        )
    return EnergyScale(
        mean=mean,
        std=std,
        force_std=force_std,
        element_references=_element_references(raw, weights, energy_std=std),
    )


def public_energy_reference(
    raw: RawCheckpoint, weights: PublicWeights, scale: EnergyScale
) -> EnergyReference:
    """Return what the energies refer to: adsorption energies unless the file objects.

    All published OC20 models, the CRACK release among them, were trained on adsorption
    energies; OC22-type and bulk models carry per-element references or say "total".
    """
    if weights.is_crack:
        return "adsorption"
    dataset = _dataset(raw)
    task = as_mapping(as_mapping(raw.content.get("config")).get("task"))
    formats = (str(dataset.get("format", "")), str(task.get("dataset", "")))
    transforms = as_mapping(dataset.get("transforms"))
    references = [dataset.get("lin_ref"), transforms.get("element_references")]
    is_total = (
        bool(scale.element_references)
        or any(dataset.get(key) or task.get(key) for key in _TOTAL_ENERGY_OPTIONS)
        or any(name.startswith("oc22") for name in formats)
        or any(references)
    )
    if any(references) and not scale.element_references:
        warnings.warn(
            f"'{raw.path}' was trained on energies minus per-element references that "
            "it does not contain; its energies lack them",
            stacklevel=2,
        )
    return "total" if is_total else "adsorption"


_TOTAL_ENERGY_OPTIONS = ("total_energy", "train_on_oc20_total_energies", "oc20_ref")


def public_elements(
    scale: EnergyScale, reference: EnergyReference, *, n_elements: int
) -> tuple[int, ...]:
    """Return the elements of the training data, as far as the file tells them."""
    known: tuple[int, ...] = tuple(range(1, n_elements))
    if scale.element_references:
        known = tuple(sorted(scale.element_references))
    elif reference == "adsorption":
        known = OC20_ELEMENTS
    return tuple(number for number in known if number < n_elements)


def _dataset(raw: RawCheckpoint) -> Mapping[str, Any]:
    """Return the configuration of the training set: a mapping, a list, or by split."""
    dataset = as_mapping(raw.content.get("config")).get("dataset")
    if isinstance(dataset, list | tuple):
        dataset = dataset[0] if dataset else None
    dataset = as_mapping(dataset)
    return as_mapping(dataset["train"]) if "train" in dataset else dataset


def _configured_normalizers(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    transforms = as_mapping(as_mapping(dataset.get("transforms")).get("normalizer"))
    if transforms:
        return transforms
    if not dataset.get("normalize_labels", False):
        return {}
    return {
        label: {
            "mean": dataset.get(f"{label}_mean", 0.0),
            "std": dataset.get(f"{label}_std", 1.0),
        }
        for label in ("target", "grad_target")
    }


def _entry(mapping: Mapping[str, Any], names: tuple[str, str]) -> Mapping[str, Any]:
    """Return what belongs to one output; fairchem 1.x lets users prefix its name."""
    for name in names:
        if name in mapping:
            return as_mapping(mapping[name])
    prefixed = [key for key in mapping if str(key).endswith(f"_{names[0]}")]
    return as_mapping(mapping[prefixed[0]]) if len(prefixed) == 1 else {}


def _moments(raw: RawCheckpoint, entry: Mapping[str, Any]) -> tuple[float, float]:
    mean = _number(entry.get("mean", 0.0))
    std = next(
        (_number(entry[key]) for key in ("rmsd", "std", "stdev") if key in entry), 1.0
    )
    if mean is None or std is None or not std > 0.0:
        raise CheckpointError(
            f"'{raw.path}' has the normaliser {dict(entry)}; expected one number for "
            "the mean and one above zero for the deviation"
        )
    return mean, std


def _number(value: object) -> float | None:
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, int | float) and torch.tensor(float(value)).isfinite():
        return float(value)
    return None


def _element_references(
    raw: RawCheckpoint, weights: PublicWeights, *, energy_std: float
) -> dict[int, float]:
    """Return eV per atom by element, from either place where the public code keeps it.

    ``elementrefs`` (fairchem 1.x) are in eV. ``energy_lin_ref`` (OC22) is inside the
    network, so it is divided by the deviation of the normaliser.
    """
    elementrefs = as_mapping(raw.content.get("elementrefs"))
    table = _entry(elementrefs, _ENERGY).get("element_references")
    factor = 1.0
    if not isinstance(table, Tensor) and weights.energy_references is not None:
        table, factor = weights.energy_references, energy_std
    if not isinstance(table, Tensor):
        return {}
    values = (table.double().flatten() * factor).tolist()
    if not all(torch.tensor(values).isfinite()):
        raise CheckpointError(
            f"'{raw.path}' has element references that are no numbers"
        )
    n_elements = weights.tensors["sphere_embedding.weight"].shape[0]
    return {
        number: value
        for number, value in enumerate(values[:n_elements])
        if number > 0 and value != 0.0
    }
