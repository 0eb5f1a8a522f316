"""A network with its units: energies in eV, gradient or direct forces, stress."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crack_md.graph import (
    AtomGraph,
    atoms_per_structure,
    exact_product,
    sum_over_structures,
)
from crack_md.models.domain import FeatureStatistics, ShortestDistances
from crack_md.models.layers import set_any_order
from crack_md.models.limits import Limits
from crack_md.models.network import Edges, Forces, Network, NetworkOutput
from crack_md.models.precision import Products, tf32_products
from crack_md.neighbors import NeighborRule


class Prediction(NamedTuple):
    """Energies and forces of a batch of structures, in eV and Å."""

    energy: Float[Tensor, " structure"]
    """Summed in float64; ``ModelMetadata.energy_reference`` says what it is."""
    forces: Float[Tensor, "atom 3"]
    stress: Float[Tensor, "structure 3 3"] | None
    """eV/Å³ with ASE's sign; None where the model has no stress."""
    node_features: Float[Tensor, "atom coefficient channel"]
    """SO(3) coefficients after the final norm; coefficient 0 is the invariant z."""
    node_energy: Float[Tensor, " atom"] | None = None
    """What each atom contributes, in eV; they add up to the energy of the structure."""


class EdgePrediction(NamedTuple):
    """What edges alone give, in eV and Å: to programs that have no graph of ours."""

    node_energy: Float[Tensor, " atom"]
    """In float64, without `EnergyScale.mean`, which belongs to no atom."""
    forces: Float[Tensor, "atom 3"]
    node_features: Float[Tensor, "atom coefficient channel"]
    slopes: Float[Tensor, "edge 3"]
    """∂E/∂vector of every edge, in the order of the edges: minus the virial is
    Σ vector ⊗ slope. Zero for direct forces, which have none."""


def invariants(prediction: Prediction) -> Float[Tensor, "atom channel"]:
    """Return z, the l = 0 node features that the feature losses compare."""
    return prediction.node_features[:, 0]


EnergyReference = Literal["total", "adsorption"]


@dataclass(frozen=True)
class EnergyScale:
    """How raw outputs become eV: ``E = raw · std + mean + Σ element reference``."""

    mean: float = 0.0
    """eV per structure."""
    std: float = 1.0
    """eV."""
    force_std: float = 1.0
    """eV/Å; direct forces are multiplied by it."""
    element_references: Mapping[int, float] = field(default_factory=dict)
    """eV per atom, by atomic number; where the network starts from."""
    isolated_references: Mapping[int, float] = field(default_factory=dict)
    """eV of an atom alone, by atomic number; where none is given, an element's
    reference is all that such an atom has."""


class EnergyUnits(NamedTuple):
    """What turns outputs of a network into energies of atoms, in eV."""

    average_atoms: float
    std: float | Float[Tensor, ""]
    references: Float[Tensor, " element"]
    isolated_difference: Float[Tensor, " element"]
    """What an atom alone has beyond the reference of its element."""

    def atomic_energies(
        self, output: NetworkOutput, numbers: Int[Tensor, " atom"]
    ) -> Float[Tensor, " atom"]:
        """Return energies in float64: of totals of hundreds of eV meV count."""
        raw = output.node_energy.double() / self.average_atoms
        energy = raw * self.std + self.references[numbers]
        if output.pair_energy is not None:
            energy = energy + output.pair_energy.double()
        if output.isolation is not None:
            missing = self.isolated_difference[numbers]
            energy = energy + missing * output.isolation.double()
        return energy


@dataclass(frozen=True)
class ModelMetadata:
    """What a model is, and where it comes from.

    Attributes:
        energy_reference: "total", or "adsorption" for
            E(adslab) − E(relaxed slab) − E(gas), as in OC20.
        elements: atomic numbers that the model was trained on.
        gas_references: energies in eV of relaxed gas molecules by formula, on the
            scale of a total-energy model.
        provenance: teacher, data, losses, metrics, citation, licence.
        sha256: of the file that the model was read from; empty for a new model.
        feature_statistics: of the training data, where they were taken.
        limits: what the model may be asked for, where that is known.
        shortest_distances: how near atoms were in the training data, if known.
    """

    energy_reference: EnergyReference
    elements: tuple[int, ...]
    gas_references: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""
    feature_statistics: FeatureStatistics | None = None
    limits: Limits | None = None
    shortest_distances: ShortestDistances | None = None


class ForceField(nn.Module):
    """A network with its energy scale, references and provenance.

    Args:
        network: the bare network.
        scale: units and offsets of its outputs.
        metadata: what the energy is, which elements are known, where it comes from.
    """

    def __init__(
        self, network: Network, scale: EnergyScale, metadata: ModelMetadata
    ) -> None:
        super().__init__()
        self.network = network
        self.scale = scale
        self.metadata = metadata
        table = torch.zeros(network.config.num_elements, dtype=torch.float64)
        for number, energy in scale.element_references.items():
            table[number] = energy
        # Plain attributes: `.float()` would round total energies of 1e4 eV to 1 meV.
        self._element_references = table
        self._isolated_difference = torch.zeros_like(table)
        for number, energy in scale.isolated_references.items():
            self._isolated_difference[number] = energy - table[number]
        network.tells_isolation = bool(scale.isolated_references)
        self._any_order = False
        self.products: Products = "exact"
        """Set by `precision`; "tf32" holds while `forward` is at work."""

    @property
    def rule(self) -> NeighborRule:
        """Return the neighbor rule that graphs for this model must follow."""
        return self.network.config.rule

    @property
    def forces(self) -> Forces:
        """Return whether forces are −∂E/∂r ("gradient") or a head ("direct")."""
        return self.network.config.forces

    @property
    def dtype(self) -> torch.dtype:
        """Return the precision of the weights."""
        return next(self.network.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Return the device of the weights."""
        return next(self.network.parameters()).device

    def forward(
        self,
        graph: AtomGraph,
        *,
        stress: bool = False,
        frames: Float[Tensor, "atom slot 3 3"] | None = None,
    ) -> Prediction:
        """Return energies, forces and features; stress on demand.

        Gradient models differentiate inside this call, so it may be made under
        ``torch.no_grad``. In training mode the forces keep their own graph; so they do
        where the positions already require a gradient, which then reaches them, so
        that forces can be differentiated (rows of their Jacobian) and trained on that.

        Args:
            graph: atoms and neighbors, following `rule`, in the model's precision.
            stress: also return the stress (gradient models with a cell).
            frames: edge frames to use instead of the deterministic ones.

        Raises:
            ValueError: stress was asked of a direct-force model.
        """
        with tf32_products(self.products == "tf32"):
            if self.forces == "gradient":
                with torch.enable_grad():
                    return self._conservative(graph, stress=stress, frames=frames)
            if stress:
                raise ValueError("a direct-force model has no stress")
            return self._direct(graph, frames=frames)

    def energy(self, graph: AtomGraph) -> Float[Tensor, " structure"]:
        """Return energies in eV alone: all that training on energies has to pay for.

        Args:
            graph: as for a call of the model.
        """
        with tf32_products(self.products == "tf32"):
            self._allow_any_order(graph.positions.requires_grad)
            atomic = self._node_energy(self.network(graph), graph)
            return sum_over_structures(atomic, graph)

    def _direct(
        self, graph: AtomGraph, *, frames: Float[Tensor, "atom slot 3 3"] | None
    ) -> Prediction:
        output = self.network(graph, frames=frames)
        assert output.forces is not None
        forces = output.forces * self.scale.force_std
        atomic = self._node_energy(output, graph)
        energy = sum_over_structures(atomic, graph)
        return Prediction(energy, forces, None, output.node_features, atomic)

    def _conservative(
        self,
        graph: AtomGraph,
        *,
        stress: bool,
        frames: Float[Tensor, "atom slot 3 3"] | None,
    ) -> Prediction:
        positions = graph.positions
        keep_graph = self.training or positions.requires_grad
        self._allow_any_order(positions.requires_grad)
        if not positions.requires_grad:
            positions = positions.detach().requires_grad_()
        inputs = [positions]
        moved = graph._replace(positions=positions)
        if stress:
            strain = torch.zeros_like(graph.cell).requires_grad_()
            inputs.append(strain)
            moved = _strained(moved, strain)
        output = self.network(moved, frames=frames, recompute=not keep_graph)
        atomic = self._node_energy(output, graph)
        energy = sum_over_structures(atomic, graph)
        gradients = torch.autograd.grad(energy.sum(), inputs, create_graph=keep_graph)
        tensor = None
        if stress:
            volume = torch.linalg.det(graph.cell).abs()
            tensor = gradients[1] / volume[:, None, None]
            tensor = ((tensor + tensor.transpose(1, 2)) / 2).to(graph.cell_shift.dtype)
        features = output.node_features
        if not keep_graph:
            energy, features = energy.detach(), features.detach()
            atomic = atomic.detach()
        forces = -gradients[0].to(graph.cell_shift.dtype)
        return Prediction(energy, forces, tensor, features, atomic)

    def _allow_any_order(self, wanted: bool) -> None:
        if wanted != self._any_order:
            set_any_order(self.network, wanted)
            self._any_order = wanted

    def atomic_energies(self, edges: Edges) -> Float[Tensor, " atom"]:
        """Return the energy of every atom in eV, in float64, from edges alone.

        Differentiable in the vectors of the edges. `scale.mean`, the energy of a
        structure that belongs to none of its atoms, is left out.
        """
        return self._atomic_energy(self.network.output(edges), edges.numbers)

    def on_edges(self, edges: Edges) -> EdgePrediction:
        """Return energies of atoms, forces and features from edges alone.

        Args:
            edges: of `Network.edges`, or `edges_from_list` of a list of pairs; their
                vectors are differentiated, and lengths taken from them.
        """
        with torch.enable_grad():
            vectors = edges.vectors.detach().requires_grad_()
            lengths = torch.linalg.vector_norm(vectors, dim=-1)
            edges = edges._replace(vectors=vectors, lengths=lengths)
            output = self.network.output(edges)
            atomic = self._atomic_energy(output, edges.numbers)
            if output.forces is not None:
                forces = output.forces.detach() * self.scale.force_std
                slopes = torch.zeros_like(vectors)
            else:
                (slopes,) = torch.autograd.grad(atomic.sum(), vectors)
                forces = forces_from_slopes(slopes, edges)
        features = output.node_features.detach()
        return EdgePrediction(atomic.detach(), forces, features, slopes.detach())

    def _node_energy(
        self, output: NetworkOutput, graph: AtomGraph
    ) -> Float[Tensor, " atom"]:
        return self.with_mean(self._atomic_energy(output, graph.atomic_numbers), graph)

    def with_mean(
        self, atomic: Float[Tensor, " atom"], graph: AtomGraph
    ) -> Float[Tensor, " atom"]:
        """Return energies of atoms with their shares of `EnergyScale.mean`, in eV."""
        if not self.scale.mean:
            return atomic
        return atomic + (self.scale.mean / atoms_per_structure(graph))[graph.batch]

    def _atomic_energy(
        self, output: NetworkOutput, numbers: Int[Tensor, " atom"]
    ) -> Float[Tensor, " atom"]:
        if self._element_references.device != numbers.device:
            self._element_references = self._element_references.to(numbers.device)
            self._isolated_difference = self._isolated_difference.to(numbers.device)
        return self.energy_units.atomic_energies(output, numbers)

    @property
    def energy_units(self) -> EnergyUnits:
        """Return what turns outputs of the network into energies of atoms."""
        return EnergyUnits(
            self.network.config.average_atoms,
            self.scale.std,
            self._element_references,
            self._isolated_difference,
        )


def forces_from_slopes(
    slopes: Float[Tensor, "edge 3"], edges: Edges
) -> Float[Tensor, "atom 3"]:
    """Return the forces of slopes: a vector goes from receiver to sender."""
    exact = slopes.double()  # as positions are
    forces = exact.new_zeros(edges.n_atoms, 3)
    forces = forces.index_add(0, edges.receivers, exact)
    return forces.index_add(0, edges.senders, -exact).to(slopes.dtype)


def _strained(graph: AtomGraph, strain: Float[Tensor, "structure 3 3"]) -> AtomGraph:
    """Return the graph under a small homogeneous, symmetric deformation."""
    symmetric = (strain + strain.transpose(1, 2)) / 2
    change = exact_product(graph.positions, symmetric[graph.batch])
    cell_change = exact_product(graph.cell, symmetric.unsqueeze(1))
    return graph._replace(
        positions=graph.positions + change, cell=graph.cell + cell_change
    )


def measure_features(
    model: ForceField, graphs: Iterable[AtomGraph]
) -> FeatureStatistics:
    """Return how the invariant features of structures are distributed, by element.

    Args:
        model: Evaluated in eval mode; left in the mode it was in.
        graphs: What it was trained on, in batches of any size.
    """
    was_training = model.training
    model.eval()
    features, numbers = [], []
    with torch.no_grad():
        for graph in graphs:
            features.append(invariants(model(graph)).double().cpu())
            numbers.append(graph.atomic_numbers.cpu())
    model.train(was_training)
    return FeatureStatistics.of(torch.cat(features).numpy(), torch.cat(numbers).numpy())


def with_products_in(model: ForceField, dtype: torch.dtype) -> ForceField:
    """Return a copy of a model for inference whose largest products are in ``dtype``.

    Args:
        model: Left as it is.
        dtype: `torch.bfloat16`, say.

    Raises:
        ConfigError: Its architecture has no products that are worth it.
    """
    low = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    low.network.lower_products(dtype)
    low.products = "bfloat16"
    return low


def with_tf32_products(model: ForceField) -> ForceField:
    """Return the model for a GPU that rounds the factors of its products to TF32.

    Weights are shared with the model, which is left as it is.
    """
    rounded = copy.copy(model)
    rounded.products = "tf32"
    return rounded
