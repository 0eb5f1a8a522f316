"""Which tensors of a public checkpoint are the weights of the model asked for.

Names are brought to the single-module form (``blocks.0.ga.alpha_dot``): without
``module.`` of data-parallel wrappers, ``backbone.`` and ``output_heads.NAME.`` of the
later fairchem form, and ``_student`` of the CRACK release. Constants of the public code
are dropped: this package computes its own.
"""

import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from crack_md.errors import CheckpointError
from crack_md.models.pickles import RawCheckpoint

Part = Literal["student", "teacher"]
Weights = dict[str, Tensor]

_WRAPPERS = re.compile(
    r"^(?:module\.|_orig_mod\.)*"
    r"(?:backbone\.|output_heads\.\w+\.(?=(?:energy|force)_block\.))?"
)
_CONSTANTS = re.compile(
    r"(?:^|\.)(?:distance_expansion\.offset|balance_degree_weight|expand_index"
    r"|to_grid_mat|from_grid_mat|Jd_?\d*|l_harmonic|m_harmonic|m_complex|res_size|to_m"
    r"|m_size)$"
)
_STUDENT_NAMES = {
    "blocks_student": "blocks",
    "norm_student": "norm",
    "delta_student": "delta",
    "energy_block_student": "energy_block",
}
_SHARED = ("sphere_embedding", "edge_degree_embedding", "force_block")
_TEACHER = ("blocks", "norm", "energy_block")

_FROZEN = {"sphere_embedding", "edge_degree_embedding", *_TEACHER}
_TRAINED: tuple[Callable[[str], bool], ...] = (
    lambda _head: True,
    lambda head: head != "energy_lin_ref",
    # the CRACK trainer freezes the teacher but for its force head
    lambda head: head not in _FROZEN,
    lambda head: head not in _FROZEN and head != "proj_teacher",
    lambda head: head not in _FROZEN and not head.startswith("proj_"),
)
"""Which top-level modules of a public model may have been trained."""


@dataclass(frozen=True)
class PublicWeights:
    """The weights of one model out of a public checkpoint.

    Attributes:
        tensors: by the parameter names of this package.
        is_crack: whether the file is a CRACK release with teacher and student.
        averaged: whether the tensors are the moving average of the training.
        energy_references: ``energy_lin_ref`` of OC22-type models, in units of the
            energy normaliser; None where the model has none.
        cutoff: last center of the Gaussian basis in Å, where the file holds it.
    """

    tensors: Weights
    is_crack: bool
    averaged: bool
    energy_references: Tensor | None = None
    cutoff: float | None = None


def is_equiformer(raw: RawCheckpoint) -> bool:
    """Return whether the file holds the state of an EquiformerV2."""
    state = raw.content.get("state_dict")
    if not isinstance(state, Mapping):
        return False
    names = {_WRAPPERS.sub("", str(name)) for name in state}
    return "sphere_embedding.weight" in names and any(
        name.endswith(".ga.alpha_dot") for name in names
    )


def public_weights(raw: RawCheckpoint, *, part: Part) -> PublicWeights:
    """Return the weights of the model, of its moving average where there is one.

    Raises:
        CheckpointError: The file holds no EquiformerV2, or not the part asked for.
    """
    if not is_equiformer(raw):
        raise CheckpointError(
            f"'{raw.path}' holds no EquiformerV2: {_described(raw)}; expected a CRACK "
            "release, an OCP/fairchem v1 EquiformerV2 checkpoint or a crack-md model"
        )
    state = _single_module_names(raw)
    offset = state.get("distance_expansion.offset")
    trained = {k: v for k, v in state.items() if not _CONSTANTS.search(k)}
    is_crack = any(name.startswith("blocks_student.") for name in trained)
    average = _moving_average(raw, trained)
    trained.update(average)
    references = trained.pop("energy_lin_ref", None)
    tensors = _crack_part(trained, part) if is_crack else _known_heads(raw, trained)
    return PublicWeights(
        tensors=tensors,
        is_crack=is_crack,
        averaged=bool(average),
        energy_references=references,
        cutoff=None if offset is None else float(offset[-1]),
    )


def _single_module_names(raw: RawCheckpoint) -> Weights:
    state: Weights = {}
    for original, tensor in raw.content["state_dict"].items():
        name = _WRAPPERS.sub("", original)
        if name in state:
            raise CheckpointError(
                f"'{raw.path}' has several output heads with the parameter '{name}'; "
                "crack-md reads models with one energy head and one force head"
            )
        if isinstance(tensor, Tensor):
            state[name] = tensor
    return state


def _known_heads(raw: RawCheckpoint, trained: Weights) -> Weights:
    others = {k.split(".")[1] for k in trained if k.startswith("output_heads.")}
    if others:
        warnings.warn(
            f"'{raw.path}' has the output heads {sorted(others)} beside energy and "
            "forces; they are left out",
            stacklevel=2,
        )
    return {k: v for k, v in trained.items() if not k.startswith("output_heads.")}


def _described(raw: RawCheckpoint) -> str:
    state = raw.content.get("state_dict")
    if not isinstance(state, Mapping):
        keys = ", ".join(str(key) for key in list(raw.content)[:6])
        return f"it has no state_dict, its keys are {keys or 'none'}"
    config = raw.content.get("config")
    model = config.get("model") if isinstance(config, Mapping) else None
    name = model.get("name") if isinstance(model, Mapping) else model
    first = ", ".join(str(key) for key in list(state)[:3])
    return f"its model is '{name or 'unnamed'}' with the parameters {first}, ..."


def _crack_part(trained: Weights, part: Part) -> Weights:
    chosen = {}
    for name, tensor in trained.items():
        head, _, rest = name.partition(".")
        if head in _SHARED or (part == "teacher" and head in _TEACHER):
            chosen[name] = tensor
        elif part == "student" and head in _STUDENT_NAMES:
            chosen[f"{_STUDENT_NAMES[head]}.{rest}"] = tensor
    return chosen


def _moving_average(raw: RawCheckpoint, trained: Weights) -> Weights:
    """Return the averaged tensors by name; the file stores them as a bare list.

    The list follows the order of the parameters that were trained, which is the order
    of the state_dict without constants and frozen parts.
    """
    ema = raw.content.get("ema")
    shadow: Any = ema.get("shadow_params") if isinstance(ema, Mapping) else None
    if not shadow:
        return {}
    for was_trained in _TRAINED:
        names = [name for name in trained if was_trained(name.partition(".")[0])]
        if _shapes(shadow) == _shapes(trained[name] for name in names):
            return dict(zip(names, shadow, strict=True))
    warnings.warn(
        f"'{raw.path}' holds a moving average of {len(shadow)} tensors that does not "
        f"match its {len(trained)} parameters; the raw weights are used, which public "
        "inference would not do",
        stacklevel=2,
    )
    return {}


def _shapes(tensors: Iterable[Any]) -> list[torch.Size | None]:
    return [getattr(tensor, "shape", None) for tensor in tensors]
