"""The file format of crack-md models: plain containers and tensors, nothing else.

    format_version      1
    architecture        its name and options; EquiformerV2 where it has no name
    state_dict          weights by name
    energy_scale        mean and std in eV, force_std in eV/Å
    energy_reference    "total" or "adsorption"
    element_references  eV per atom by atomic number
    isolated_references eV of an atom alone by atomic number; may be missing
    gas_references      eV per molecule by formula
    elements            atomic numbers of the training data
    forces              "gradient" or "direct"
    provenance          teacher, data, losses, config, metrics, citation, licence
    feature_statistics  by atomic number, of the training data; may be missing
    limits              what the model may be asked for; may be missing
    shortest_distances  Å, by pairs of atomic numbers, in training; may be missing
    checksum            SHA-256 of what decides its answers; missing in older files

Such a file is always read with ``weights_only=True``.
"""

import dataclasses
import hashlib
import io
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from crack_md.errors import CheckpointError, CrackError, DataError
from crack_md.files import write_atomically
from crack_md.models.architectures import architecture_from, filled_network
from crack_md.models.domain import FeatureStatistics, ShortestDistances
from crack_md.models.force_field import (
    EnergyReference,
    EnergyScale,
    ForceField,
    ModelMetadata,
)
from crack_md.models.importers import import_public
from crack_md.models.limits import Limits
from crack_md.models.network import Architecture, Forces
from crack_md.models.pickles import RawCheckpoint, plain, read_checkpoint
from crack_md.models.registry import model_path

CHECKSUM = "checksum"
SIGNED = (
    "architecture",
    "state_dict",
    "energy_scale",
    "energy_reference",
    "element_references",
    "gas_references",
    "elements",
    "forces",
)
"""Parts that decide what a model answers; provenance may be edited."""
SIGNED_IF_THERE = ("isolated_references",)


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of all that decides what a model answers."""
    digest = hashlib.sha256()
    for name in (*SIGNED, *(one for one in SIGNED_IF_THERE if one in content)):
        digest.update(name.encode())
        for piece in _pieces(content[name]):
            digest.update(piece)
    return digest.hexdigest()


def check_checksum(raw: RawCheckpoint) -> None:
    """Refuse contents other than those that were saved; older files have no checksum.

    Raises:
        CheckpointError: a number of the file has changed since.
    """
    stored = raw.content.get(CHECKSUM)
    if stored is not None and stored != checksum(raw.content):
        raise CheckpointError(
            f"'{raw.path}' is damaged: its contents have another checksum than when it "
            "was saved; copy or download it again"
        )


def check_numbers(raw: RawCheckpoint, *, num_elements: int) -> None:
    """Refuse energies, scales and elements that no model has.

    Args:
        raw: the file, in the format of this package, all its parts there.
        num_elements: rows of the network's tables of elements.

    Raises:
        CheckpointError: something of another kind, not finite, or out of range.
    """
    content, path = raw.content, raw.path
    for name, value in content["energy_scale"].items():
        positive = name != "mean"
        if not _is_finite(value) or (positive and value <= 0):
            expected = "a number above 0" if positive else "a number"
            raise _wrong_content(path, f"energy_scale.{name}", value, expected)
    elements = content["elements"]
    isolated = content.get("isolated_references", {})
    for number in [*elements, *content["element_references"], *isolated]:
        if type(number) is not int or not 1 <= number < num_elements:
            expected = f"atomic numbers from 1 to {num_elements - 1}"
            raise _wrong_content(path, "elements", number, expected)
    if not elements:
        raise _wrong_content(path, "elements", elements, "at least one")
    for name in ("element_references", "gas_references", "isolated_references"):
        for key, value in content.get(name, {}).items():
            if not _is_finite(value) or not isinstance(key, int | str):
                raise _wrong_content(path, f"{name}[{key!r}]", value, "an energy in eV")


@contextmanager
def only_checkpoint_errors(path: object) -> Iterator[None]:
    """Turn whatever a part of the wrong kind causes into one line."""
    try:
        yield
    except CrackError:
        raise
    except Exception as error:  # every part of a file may be anything
        words = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"'{path}' holds a part of the wrong kind ({type(error).__name__}: "
            f"{words}); it is damaged, or no model that crack-md can read"
        ) from error


def _wrong_content(
    path: object, name: str, found: object, expected: str
) -> CheckpointError:
    return CheckpointError(
        f"'{path}' has a wrong '{name}': found {str(found)[:60]!r}, expected {expected}"
    )


def _is_finite(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)  # type: ignore[arg-type]


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield bytes that differ wherever values do; order of keys does not count."""
    if isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, Mapping):
        for key in sorted(value, key=repr):
            yield f"{key!r}:".encode()
            yield from _pieces(value[key])
    elif isinstance(value, list | tuple):
        yield f"[{len(value)}".encode()
        for one in value:
            yield from _pieces(one)
    else:
        yield repr(value).encode()


FORMAT_VERSION = 1


def save_model(
    model: ForceField,
    path: str | Path,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write the model; the file appears complete or not at all.

    Args:
        model: what to write, in the precision of its weights.
        path: usually ``student.pt``.
        provenance: added to, and where they meet replacing, the model's own.

    Raises:
        CheckpointError: The folder can not be written.
    """
    content = content_of(model, provenance)
    # A buffer, because torch.save writes the name of a path into the file: equal
    # models would differ in their hash.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    try:
        write_atomically(Path(path), buffer.getvalue())
    except DataError as error:
        raise CheckpointError(
            f"{error}; choose a folder that exists and is writable"
        ) from error


def content_of(
    model: ForceField, provenance: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return what a file of the model holds; arguments as of `save_model`."""
    config, scale, metadata = model.network.config, model.scale, model.metadata
    content: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "architecture": dataclasses.asdict(config),
        "state_dict": {
            name: tensor.detach().cpu().clone()
            for name, tensor in model.network.state_dict().items()
        },
        "energy_scale": {
            "mean": scale.mean,
            "std": scale.std,
            "force_std": scale.force_std,
        },
        "energy_reference": metadata.energy_reference,
        "element_references": plain(scale.element_references),
        "gas_references": plain(metadata.gas_references),
        "elements": plain(metadata.elements),
        "forces": config.forces,
        "provenance": plain({**metadata.provenance, **(provenance or {})}),
    }
    if scale.isolated_references:
        content["isolated_references"] = plain(scale.isolated_references)
    if metadata.feature_statistics is not None:
        content["feature_statistics"] = metadata.feature_statistics.plain()
    if metadata.limits is not None:
        content["limits"] = metadata.limits.plain()
    if metadata.shortest_distances is not None:
        content["shortest_distances"] = metadata.shortest_distances.plain()
    content[CHECKSUM] = checksum(content)
    return content


def load_model(
    path_or_name: str | Path,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ForceField:
    """Return a model in eval mode; its hash is in ``model.metadata.sha256``.

    Args:
        path_or_name: a crack-md model, a public EquiformerV2 checkpoint, or the name of
            a packaged model ("default").
        device: where the model lives.
        dtype: the precision of its weights and of the graphs it takes.

    Raises:
        CheckpointError: The file is missing, damaged, foreign or inconsistent.
    """
    raw = read_checkpoint(model_path(path_or_name))
    with only_checkpoint_errors(raw.path):
        model = model_from(raw) if is_crack_md(raw) else import_public(raw)
    return model.to(device=device, dtype=dtype).eval()


def is_crack_md(raw: RawCheckpoint) -> bool:
    """Return whether the file is in the format of this package."""
    return "format_version" in raw.content


def model_from(raw: RawCheckpoint) -> ForceField:
    """Return the model of a file in the format of this package.

    Raises:
        CheckpointError: The version is unknown, a part is missing or has a wrong type.
    """
    content = raw.content
    if content["format_version"] != FORMAT_VERSION:
        raise CheckpointError(
            f"'{raw.path}' has format version {content['format_version']!r}; this "
            f"crack-md reads version {FORMAT_VERSION}: update crack-md, or write the "
            "model again"
        )
    if raw.foreign:
        raise CheckpointError(
            f"'{raw.path}' holds an object of '{raw.foreign[0]}', which was not run; a "
            "crack-md model holds plain containers and tensors only"
        )
    config = _architecture(raw)
    tensors = _part(raw, "state_dict", dict)
    if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise _wrong(raw, "state_dict", "something else than tensors", "tensors")
    reference: Any = content.get("energy_reference")
    # as a list: a set or dictionary in its place is compared, not hashed
    if reference not in list(get_args(EnergyReference)):
        expected = " or ".join(get_args(EnergyReference))
        raise _wrong(raw, "energy_reference", repr(reference), expected)
    scale = _scale(raw)
    elements, gases = _part(raw, "elements", list), _part(raw, "gas_references", dict)
    check_numbers(raw, num_elements=config.num_elements)
    metadata = ModelMetadata(
        energy_reference=reference,
        elements=tuple(elements),
        gas_references=gases,
        provenance=_part(raw, "provenance", dict),
        sha256=raw.sha256,
        feature_statistics=_feature_statistics(raw),
        limits=_limits(raw),
        shortest_distances=_shortest_distances(raw),
    )
    network = filled_network(config, tensors, source=str(raw.path))
    check_checksum(raw)
    return ForceField(network, scale, metadata).eval()


def _architecture(raw: RawCheckpoint) -> Architecture:
    options = _part(raw, "architecture", dict)
    try:
        config = architecture_from(options)
    except (TypeError, ValueError) as error:
        expected = "the options of an architecture of this crack-md"
        raise _wrong(raw, "architecture", _one_line(error), expected) from error
    forces = raw.content.get("forces")
    if forces != config.forces or forces not in get_args(Forces):
        expected = f"'{config.forces}', as its architecture says"
        raise _wrong(raw, "forces", repr(forces), expected)
    return config


def _feature_statistics(raw: RawCheckpoint) -> FeatureStatistics | None:
    if "feature_statistics" not in raw.content:
        return None
    return FeatureStatistics.from_plain(_part(raw, "feature_statistics", dict))


def _limits(raw: RawCheckpoint) -> Limits | None:
    if "limits" not in raw.content:
        return None
    return Limits.from_plain(_part(raw, "limits", dict))


def _shortest_distances(raw: RawCheckpoint) -> ShortestDistances | None:
    if "shortest_distances" not in raw.content:
        return None
    return ShortestDistances.from_plain(_part(raw, "shortest_distances", list))


def _scale(raw: RawCheckpoint) -> EnergyScale:
    values = _part(raw, "energy_scale", dict)
    references = _part(raw, "element_references", dict)
    isolated: dict[int, float] = {}
    if "isolated_references" in raw.content:
        isolated = _part(raw, "isolated_references", dict)
    try:
        return EnergyScale(
            **values, element_references=references, isolated_references=isolated
        )
    except TypeError as error:
        expected = "mean, std and force_std"
        raise _wrong(raw, "energy_scale", _one_line(error), expected) from error


def _part(raw: RawCheckpoint, name: str, kind: type) -> Any:
    value = raw.content.get(name)
    if not isinstance(value, kind):
        found = "nothing" if value is None else f"a {type(value).__name__}"
        raise _wrong(raw, name, found, f"a {kind.__name__}")
    return value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _wrong(raw: RawCheckpoint, name: str, found: str, expected: str) -> CheckpointError:
    return CheckpointError(
        f"'{raw.path}' has a wrong '{name}': found {found}, expected {expected}; write "
        "the model again with crack_md.models.checkpoint.save_model"
    )
