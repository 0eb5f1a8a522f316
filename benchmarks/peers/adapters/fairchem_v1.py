"""EquiformerV2 of fairchem-core 1.10.0, eager, as its own calculator would call it.

The public class has no residual feed-forward behind the last norm, which the published
CRACK student has: it is added here out of fairchem's own layers. With weights from one
of our files both codes then compute the same function. ``crack-original`` stands for
the forward call of the original CRACK code, which runs the graph, the embeddings and
the 20 layers of the teacher beside the two of the student in every call.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import peer
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from fairchem.core.datasets import data_list_collater
from fairchem.core.models.equiformer_v2.equiformer_v2_deprecated import EquiformerV2
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding
from fairchem.core.models.equiformer_v2.transformer_block import FeedForwardNetwork
from fairchem.core.preprocessing import AtomsToGraphs

PUBLISHED: dict[str, Any] = {
    "use_pbc": True,
    "regress_forces": True,
    "otf_graph": True,
    "max_neighbors": 20,
    "max_radius": 12.0,
    "num_layers": 20,
    "sphere_channels": 128,
    "attn_hidden_channels": 64,
    "num_heads": 8,
    "attn_alpha_channels": 64,
    "attn_value_channels": 16,
    "ffn_hidden_channels": 128,
    "norm_type": "layer_norm_sh",
    "lmax_list": [6],
    "mmax_list": [3],
    "grid_resolution": 18,
    "edge_channels": 128,
    "attn_activation": "silu",
    "ffn_activation": "silu",
    "use_grid_mlp": True,
}
"""The 153M model of OC20."""
FROM_CONFIG = {
    "max_neighbors": "max_neighbors",
    "cutoff": "max_radius",
    "num_elements": "max_num_elements",
    "num_layers": "num_layers",
    "sphere_channels": "sphere_channels",
    "attn_hidden_channels": "attn_hidden_channels",
    "num_heads": "num_heads",
    "attn_alpha_channels": "attn_alpha_channels",
    "attn_value_channels": "attn_value_channels",
    "ffn_hidden_channels": "ffn_hidden_channels",
    "grid_resolution": "grid_resolution",
    "edge_channels": "edge_channels",
}
"""Our names of settings, and theirs."""


def start(threads: int) -> None:
    """Set the number of threads; the libraries are imported by now."""
    torch.set_num_threads(threads)


def load(options: dict[str, Any]) -> peer.Peer:
    """Return the student, after the teacher where the original runs both.

    Args:
        options: ``weights``, a model file of crack-md, for the student; ``device``;
            ``teacher_layers``, 0 for none; its weights are random.
    """
    torch.manual_seed(0)
    device = options["device"]
    models = [student(options["weights"])]
    if options.get("teacher_layers"):
        settings = PUBLISHED | {"num_layers": options["teacher_layers"]}
        models.insert(0, EquiformerV2(**settings))
    for model in models:
        model.eval().requires_grad_(False).to(device)
    return Fairchem1(models, device)


def student(path: str) -> EquiformerV2:
    """Return fairchem's network with the architecture and weights of our file."""
    content = torch.load(path, weights_only=True)
    config = content["architecture"]
    settings = {theirs: config[ours] for ours, theirs in FROM_CONFIG.items()}
    settings |= {"lmax_list": [config["lmax"]], "mmax_list": [config["mmax"]]}
    model = EquiformerV2(**(PUBLISHED | settings))
    if config["delta"]:
        model.norm = NormWithResidual(model)
    weights = {_their_name(k, config): v for k, v in content["state_dict"].items()}
    found = model.load_state_dict(weights, strict=False)
    learned = {name for name, _ in model.named_parameters()}
    if found.unexpected_keys or learned.intersection(found.missing_keys):
        raise ValueError(f"the weights of {path} do not fit fairchem's class")
    return model


def _their_name(name: str, config: dict[str, Any]) -> str:
    if config["delta"] and name.startswith("norm."):
        return name.replace("norm.", "norm.norm.", 1)
    return f"norm.{name}" if name.startswith("delta.") else name


class NormWithResidual(torch.nn.Module):
    """The last norm, and the feed-forward network beside a shortcut behind it."""

    def __init__(self, model: EquiformerV2) -> None:
        super().__init__()
        self.norm = model.norm
        self.lmax_list = model.lmax_list
        self.delta = FeedForwardNetwork(
            model.sphere_channels,
            model.ffn_hidden_channels,
            model.sphere_channels,
            model.lmax_list,
            model.mmax_list,
            model.SO3_grid,
            model.ffn_activation,
            model.use_gate_act,
            model.use_grid_mlp,
            model.use_sep_s2_act,
        )

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """Return the normed embedding plus what the network makes of it."""
        normed = self.norm(embedding)
        n_atoms, _, channels = normed.shape
        given = SO3_Embedding(
            n_atoms, self.lmax_list, channels, normed.device, normed.dtype
        )
        given.embedding = normed
        return normed + self.delta(given).embedding


class Fairchem1(peer.TorchPeer):
    """One or two networks, called one after the other; the last one answers."""

    def __init__(self, models: list[EquiformerV2], device: str) -> None:
        super().__init__(device)
        self.models, self.device = models, device
        self.convert = AtomsToGraphs(r_edges=False, r_fixed=True, r_pbc=True).convert
        self.about = {
            "weights": sum(model.num_params for model in models),
            "versions": {n: version(n) for n in ("fairchem-core", "torch")},
        }

    def calculator(self) -> Calculator:
        """Return a calculator that does what OCPCalculator does, without a trainer."""
        return Fairchem1Calculator(self)

    def evaluate(self, structures: list[Atoms]) -> peer.Answer:
        """Return energies and forces of structures in one pass."""
        outputs = self._forward(self._batch(structures))
        forces = outputs["forces"].cpu().numpy()
        ends = np.cumsum([len(one) for one in structures])[:-1]
        return outputs["energy"].cpu().tolist(), np.split(forces, ends)

    def network(self, structures: list[Atoms]) -> Callable[[], Any]:
        """Return the pass through the networks with the edges given."""
        batch = self._batch(structures)
        with torch.no_grad():
            graph = self.models[-1].generate_graph(batch)
        batch.edge_index, batch.cell_offsets = graph.edge_index, graph.cell_offsets
        batch.neighbors = graph.neighbors

        def call() -> Any:
            for model in self.models:
                model.otf_graph = False
            try:
                return self._forward(batch)
            finally:
                for model in self.models:
                    model.otf_graph = True

        return call

    def _batch(self, structures: list[Atoms]) -> Any:
        data = [self.convert(one) for one in structures]
        return data_list_collater(data, otf_graph=True).to(self.device)

    def _forward(self, batch: Any) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            for model in self.models:
                outputs = model(batch)
        return outputs


class Fairchem1Calculator(Calculator):
    """From ASE to a graph, through the networks, and back to NumPy."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, engine: Fairchem1) -> None:
        super().__init__()
        self.engine = engine

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Any = ("energy",),
        system_changes: Any = tuple(all_changes),
    ) -> None:
        """Fill `results`."""
        super().calculate(atoms, properties, system_changes)
        energies, forces = self.engine.evaluate([atoms])
        self.results = {"energy": energies[0], "forces": forces[0]}
