"""Weights and architecture of a public EquiformerV2 checkpoint.

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
from crack_md.models.archives import Foreign
from crack_md.models.equiformer.equiformer_v2 import EquiformerV2Config
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


_PUBLIC_DEFAULTS: dict[str, Any] = {
    "max_neighbors": 500,
    "max_radius": 5.0,
    "max_num_elements": 90,
    "sphere_channels": 128,
    "attn_hidden_channels": 128,
    "num_heads": 8,
    "attn_alpha_channels": 32,
    "attn_value_channels": 16,
    "ffn_hidden_channels": 512,
    "norm_type": "rms_norm_sh",
    "lmax_list": [6],
    "mmax_list": [2],
    "grid_resolution": None,
    "edge_channels": 128,
    "use_gate_act": False,
    "use_grid_mlp": False,
}
"""Of the public class: a configuration names only what differs."""

_REQUIRED: dict[str, Any] = {
    "regress_forces": True,
    "use_atom_edge_embedding": True,
    "share_atom_edge_embedding": False,
    "use_m_share_rad": False,
    "distance_function": "gaussian",
    "use_s2_act_attn": False,
    "use_attn_renorm": True,
    "use_sep_s2_act": True,
    "enforce_max_neighbors_strictly": True,
}
"""Public options of which this package has the setting of the published models."""

_AVERAGE_ATOMS = 77.81317
_AVERAGE_DEGREE = 23.395238876342773
_BLOCK = re.compile(r"^blocks\.(\d+)\.")


def as_mapping(value: object) -> Mapping[str, Any]:
    """Return a configuration as a mapping, empty where there is none."""
    if isinstance(value, Foreign):
        return value.contents
    return value if isinstance(value, Mapping) else {}


def model_options(raw: RawCheckpoint) -> dict[str, Any]:
    """Return the options of the public model class, wherever the file keeps them."""
    config = as_mapping(raw.content.get("config"))
    model = config.get("model")
    options = {
        **as_mapping(config.get("model_attributes")),
        **as_mapping(model),
        **as_mapping(as_mapping(model).get("backbone")),
    }
    if not {"lmax_list", "sphere_channels", "num_layers"} & options.keys():
        raise CheckpointError(
            f"'{raw.path}' does not say its architecture: its 'config' has the keys "
            f"{', '.join(map(str, config)) or 'none'}; expected the options of "
            "EquiformerV2 in 'model' or 'model_attributes'"
        )
    return options


def public_architecture(
    raw: RawCheckpoint, weights: PublicWeights
) -> EquiformerV2Config:
    """Return the architecture that the weights belong to.

    Raises:
        CheckpointError: The configuration is missing, contradicts the weights, or asks
            for an option this package does not have.
    """
    options = _PUBLIC_DEFAULTS | model_options(raw)
    for name, expected in _REQUIRED.items():
        if options.get(name, expected) != expected:
            raise CheckpointError(
                f"'{raw.path}' was made with {name}={options[name]!r}; crack-md reads "
                f"models with {name}={expected!r}, as all published ones are"
            )
    if options["grid_resolution"] is None or options["norm_type"] == "layer_norm":
        raise CheckpointError(
            f"'{raw.path}' was made with grid_resolution="
            f"{options['grid_resolution']} and norm_type='{options['norm_type']}'; "
            "crack-md reads models with a square grid and the norms 'layer_norm_sh' "
            "and 'rms_norm_sh'"
        )
    try:
        return _config(raw, options, weights)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"'{raw.path}' has a wrong option of its architecture ({error}); expected "
            "the options of EquiformerV2 in its 'config'"
        ) from error


def _config(
    raw: RawCheckpoint, options: Mapping[str, Any], weights: PublicWeights
) -> EquiformerV2Config:
    gate = bool(options["use_gate_act"])
    grid = bool(options["use_grid_mlp"])
    sizes: dict[str, Any] = {name: int(options[name]) for name in _SAME_NAME}
    return EquiformerV2Config(
        neighbors="strict",
        cutoff=_cutoff(raw, options, weights),
        max_neighbors=int(options["max_neighbors"]),
        num_elements=int(options["max_num_elements"]),
        num_layers=_n_layers(raw, options, weights),
        lmax=_single(raw, options, "lmax_list"),
        mmax=_single(raw, options, "mmax_list"),
        norm=options["norm_type"],
        activation="gate" if gate else "s2",
        ffn="grid" if grid else "gate" if gate else "s2",
        forces="direct",
        delta=any(name.startswith("delta.") for name in weights.tensors),
        average_degree=float(options.get("avg_degree") or _AVERAGE_DEGREE),
        average_atoms=float(options.get("avg_num_nodes") or _AVERAGE_ATOMS),
        **sizes,
    )


_SAME_NAME = (
    "sphere_channels",
    "attn_hidden_channels",
    "num_heads",
    "attn_alpha_channels",
    "attn_value_channels",
    "ffn_hidden_channels",
    "grid_resolution",
    "edge_channels",
)


def _cutoff(
    raw: RawCheckpoint, options: Mapping[str, Any], weights: PublicWeights
) -> float:
    cutoff = float(options["max_radius"])
    if weights.cutoff is not None and abs(weights.cutoff - cutoff) > 1e-4:
        raise CheckpointError(
            f"'{raw.path}' contradicts itself: its configuration has a cutoff of "
            f"{cutoff} Å, its radial basis ends at {weights.cutoff} Å"
        )
    return cutoff


def _n_layers(
    raw: RawCheckpoint, options: Mapping[str, Any], weights: PublicWeights
) -> int:
    """Return the number of blocks in the file; a CRACK student's is in no option."""
    blocks = {match[1] for name in weights.tensors if (match := _BLOCK.match(name))}
    stated = options.get("num_layers")
    is_student = "delta.so3_linear_1.weight" in weights.tensors
    if stated is not None and not is_student and int(stated) != len(blocks):
        raise CheckpointError(
            f"'{raw.path}' contradicts itself: its configuration has {stated} layers, "
            f"its weights have {len(blocks)}"
        )
    return len(blocks)


def _single(raw: RawCheckpoint, options: Mapping[str, Any], name: str) -> int:
    values = options[name]
    if not isinstance(values, list | tuple) or len(values) != 1:
        raise CheckpointError(
            f"'{raw.path}' has {name}={values!r}; crack-md reads models of one "
            f"resolution, such as {name}=[6]"
        )
    return int(values[0])
