"""TensorNet potentials as published with MatPES, evaluated in plain PyTorch.

A folder holds `model.json`, which says how the network was made, and `state.pt`, its
weights. The models at hand were trained by two codes whose sums over neighbors differ:
in the older one (DGL) the messages of an atom carry its own tensor, in the newer one
(PyTorch Geometric) that of its neighbor. Nothing but the module named in `model.json`
tells which one the weights were trained with, and either gives numbers.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_numbers
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.errors import CheckpointError, TeacherError
from crack_md.models.pickles import read_checkpoint
from crack_md.models.teachers.base import TeacherLabels, predict_in_batches
from crack_md.models.teachers.tensornet_network import TensorNet, TensorNetConfig
from crack_md.neighbors import all_pairs

MESSAGES = {"_tensornet_dgl": "receiver", "_tensornet_pyg": "sender"}
"""Whose tensor a message carries, by the code that trained the weights."""
EXPECTED = {
    "is_intensive": False,
    "rbf_type": "SphericalBessel",
    "use_smooth": True,
    "activation_type": "swish",
    "equivariance_invariance_group": "O(3)",
    "include_state": False,
    "ntargets": 1,
}
"""What this code evaluates; models with other choices are refused."""


class TensorNetTeacher:
    """A TensorNet potential that labels structures in batches.

    Args:
        folder: with `model.json` and `state.pt`.
        device: where to evaluate.
        dtype: of weights and structures.
        atoms_per_batch: how many atoms share one forward pass.

    Raises:
        TeacherError: A file is missing, or describes a model of another kind.
        CheckpointError: The weights are damaged or do not fit `model.json`.
    """

    has_features = has_node_energy = has_stress = True
    energy_reference = "total"

    def __init__(
        self,
        folder: Path | str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        atoms_per_batch: int = 100,
    ) -> None:
        folder = Path(folder)
        described = _description(folder / "model.json")
        raw = read_checkpoint(folder / "state.pt")
        config, symbols = _config(described, folder)
        self.name = folder.resolve().name
        self.sha256 = hashlib.sha256(
            (folder / "model.json").read_bytes() + raw.sha256.encode()
        ).hexdigest()
        self.device, self.dtype = torch.device(device), dtype
        self.atoms_per_batch = atoms_per_batch
        self.cutoff = config.cutoff_A
        network = TensorNet(config)
        weights = _weights(raw.content, config, folder)
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"the weights in {folder} do not fit its model.json: {reason}"
            ) from error
        self._network = network.to(self.device, dtype).eval().requires_grad_(False)
        self._scale = float(raw.content["data_std"])
        self._mean = float(raw.content["data_mean"])
        self._offset = raw.content["element_refs.property_offset"].double().cpu()
        self._row = np.full(119, -1)
        self._row[[atomic_numbers[symbol] for symbol in symbols]] = range(len(symbols))
        self.elements: frozenset[int] | None = frozenset(
            atomic_numbers[symbol] for symbol in symbols
        )

    def predict(self, atoms: Sequence[Atoms]) -> list[TeacherLabels]:
        """Return energy, forces, stress and the 128 invariants before the readout."""
        return predict_in_batches(
            self, atoms, self._predict_batch, atoms_per_batch=self.atoms_per_batch
        )

    def _predict_batch(self, structures: list[Atoms]) -> list[TeacherLabels]:
        sizes = [len(one) for one in structures]
        structure = torch.repeat_interleave(
            torch.arange(len(sizes)), torch.tensor(sizes)
        ).to(self.device)
        vectors, senders, receivers = self._edges(structures)
        rows = np.concatenate([self._row[one.numbers] for one in structures])
        species = torch.from_numpy(rows)
        with torch.enable_grad():
            vectors.requires_grad_(True)
            energy, features = self._network(
                vectors, senders, receivers, species.to(self.device)
            )
            (slope,) = torch.autograd.grad(energy.sum(), vectors)
        slope = slope.double() * self._scale
        # an edge vector is sender minus receiver
        forces = torch.zeros(len(species), 3, dtype=torch.float64, device=self.device)
        forces.index_add_(0, receivers, slope).index_add_(0, senders, -slope)
        virial = slope.unsqueeze(-1) * vectors.detach().double().unsqueeze(-2)
        stress = torch.zeros(len(sizes), 3, 3, dtype=torch.float64, device=self.device)
        stress.index_add_(0, structure[receivers], virial)
        atomic = energy.detach().double().cpu() * self._scale + self._offset[species]
        return [
            TeacherLabels(
                energy=float(share.sum()) + self._mean,
                forces=force.cpu().numpy(),
                node_features=feature.float().unsqueeze(1).cpu().numpy(),
                node_energy=share.numpy(),
                stress=(total + total.T).cpu().numpy() / 2 / one.cell.volume,
            )
            for share, force, feature, total, one in zip(
                atomic.split(sizes),
                forces.split(sizes),
                features.detach().split(sizes),
                stress,
                structures,
                strict=True,
            )
        ]

    def _edges(
        self, structures: list[Atoms]
    ) -> tuple[Float[Tensor, "edge 3"], Int[Tensor, " edge"], Int[Tensor, " edge"]]:
        """Return vectors from receiver to sender in Å, senders and receivers."""
        vectors, senders, receivers, first = [], [], [], 0
        for one in structures:
            pairs = all_pairs(one, self.cutoff)
            images = pairs.shift @ one.cell.array
            sender, receiver = (
                one.positions[pairs.sender],
                one.positions[pairs.receiver],
            )
            vectors.append(sender - receiver + images)  # in float64: they cancel
            senders.append(pairs.sender + first)
            receivers.append(pairs.receiver + first)
            first += len(one)
        parts = (np.concatenate(part) for part in (vectors, senders, receivers))
        edge, sender, receiver = (
            torch.from_numpy(part).to(self.device) for part in parts
        )
        return edge.to(self.dtype), sender, receiver


def _description(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        return dict(content["kwargs"]["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise TeacherError(
            f"cannot read {path}: {reason}; expected the folder of a matgl TensorNet "
            "potential, with model.json and state.pt"
        ) from error


def _config(
    described: Mapping[str, Any], folder: Path
) -> tuple[TensorNetConfig, list[str]]:
    chosen = described.get("init_args", {})
    module = str(described.get("@module", "")).rpartition(".")[2]
    for name, value in {**EXPECTED}.items():
        if chosen.get(name) != value:
            raise TeacherError(
                f"the model in {folder} has {name}={chosen.get(name)!r}; this code "
                f"evaluates TensorNet potentials with {name}={value!r} alone"
            )
    if module not in MESSAGES:
        raise TeacherError(
            f"the model in {folder} was made by '{described.get('@module')}'; expected "
            "a TensorNet of matgl (" + " or ".join(MESSAGES) + ")"
        )
    symbols = [str(symbol) for symbol in chosen["element_types"]]
    config = TensorNetConfig(
        n_elements=len(symbols),
        units=int(chosen["units"]),
        n_blocks=int(chosen["nblocks"]),
        n_basis=int(chosen["max_n"]),
        cutoff_A=float(chosen["cutoff"]),
        messages=MESSAGES[module],
    )
    return config, symbols


_NAMES = (
    (r"tensor_embedding\.emb\.", "element."),
    (r"tensor_embedding\.emb2\.", "pair."),
    (r"tensor_embedding\.distance_proj(\d)\.", "distance.{}."),
    (r"tensor_embedding\.init_norm\.", "embedding_norm."),
    (r"tensor_embedding\.linears_scalar\.(\d)\.", "embedding_scale.{}."),
    (r"layers\.(\d+)\.linears_scalar\.(\d)\.", "blocks.{}.radial.{}."),
    (r"out_norm\.", "norm."),
    (r"linear\.", "invariant."),
    (r"final_layer\.gated\.layers\.(\d)\.", "value.{}."),
    (r"final_layer\.gated\.gates\.(\d)\.", "gate.{}."),
)
"""Names of the published weights and ours, without the maps of tensors."""


def _weights(
    content: Mapping[str, Any], config: TensorNetConfig, folder: Path
) -> dict[str, Tensor]:
    """Return the published weights under our names, in our order."""
    required = ("data_mean", "data_std", "element_refs.property_offset")
    if missing := [name for name in required if name not in content]:
        raise CheckpointError(f"{folder}/state.pt has no {missing[0]}")
    result: dict[str, Tensor] = {}
    for name, tensor in content.items():
        bare = name.removeprefix("model.")
        for pattern, ours in _NAMES:
            if found := re.match(pattern, bare):
                numbers = [int(group) for group in found.groups()]
                if ours.startswith("distance"):
                    numbers = [numbers[0] - 1]
                result[ours.format(*numbers) + bare[found.end() :]] = tensor
                break
    for name in [name for name in result if _holds_degrees(name)]:
        # published: three degrees of a channel side by side; ours: channels of a degree
        result[name] = torch.cat([result[name][degree::3] for degree in range(3)])
    stacks = {"embedded": "model.tensor_embedding.linears_tensor.{}.weight"}
    for block in range(config.n_blocks):
        stem = f"model.layers.{block}.linears_tensor."
        stacks[f"blocks.{block}.before"] = stem + "{}.weight"
        stacks[f"blocks.{block}.after"] = stem + "{}.weight"
    for ours, theirs in stacks.items():
        first = 3 if ours.endswith("after") else 0
        names = [theirs.format(first + degree) for degree in range(3)]
        if any(name not in content for name in names):
            raise CheckpointError(f"{folder}/state.pt has no {names[0]}")
        result[f"{ours}.weight"] = torch.stack([content[name] for name in names])
    return result


def _holds_degrees(name: str) -> bool:
    return name.startswith("embedding_scale.1.") or ".radial.2." in name
