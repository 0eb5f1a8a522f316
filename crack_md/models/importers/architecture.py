"""The architecture of a public EquiformerV2, from the options beside its weights."""

import re
from collections.abc import Mapping
from typing import Any

from crack_md.errors import CheckpointError
from crack_md.models.archives import Foreign
from crack_md.models.equiformer_config import EquiformerV2Config
from crack_md.models.importers.weights import PublicWeights
from crack_md.models.pickles import RawCheckpoint

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
