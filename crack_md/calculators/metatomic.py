"""A model as one file of metatomic, which its engines run without this package.

The network is traced on a list of edges, with sizes free, and goes with its constants
into a module of TorchScript that asks an engine for all neighbors inside the cutoff.
Energies are float64 around a network of any precision: total energies of 1e3 eV would
be rounded to 1e-4 eV otherwise. Forces and stress are what the engine makes of the
energy's slope.
"""

import copy
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Optional

import ase
import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from crack_md.calculators.crack import DTYPES
from crack_md.calculators.drivers import check_exportable
from crack_md.calculators.engine import AGREEMENT, rattled_crystals
from crack_md.errors import CrackError, MissingDependencyError
from crack_md.files import write_atomically
from crack_md.models.checkpoint import load_model
from crack_md.models.force_field import ForceField
from crack_md.models.network import Edges
from crack_md.models.precision import ExactConstants
from crack_md.neighbors import build_graph

try:
    from metatensor.torch import Labels, TensorBlock, TensorMap
    from metatomic.torch import (
        AtomisticModel,
        ModelCapabilities,
        ModelMetadata,
        ModelOutput,
        NeighborListOptions,
        System,
    )
    from metatomic_ase import MetatomicCalculator
except ImportError as error:
    raise MissingDependencyError.of(
        "metatomic-torch", extra="metatomic", purpose="an export for metatomic"
    ) from error


def export(
    source: str | Path,
    target: Path,
    *,
    dtype: Literal["float32", "float64"] = "float32",
) -> float:
    """Write a model as a file of metatomic, and return its largest relative difference.

    The difference is that of energies, forces and stresses of the file in metatomic's
    ASE calculator from those of the model, on rattled structures.

    Args:
        source: a model file or a name.
        target: what is written, complete or not at all.
        dtype: of the network.

    Raises:
        CheckpointError: the model file cannot be used.
        ConfigError: metatomic has no way to use such a model.
        CrackError: the file does not answer as the model does; none is written.
    """
    model = load_model(source, dtype=DTYPES[dtype])
    check_exportable(model, "metatomic")
    structures = sample_structures(model)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # of PyTorch: about TorchScript, which metatomic is made of, and about branches
        # of which one is traced, which the check is for
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", TracerWarning)
        file = Path(folder) / target.name
        atomistic_model(model, structures[0]).save(file)
        difference = largest_difference(file, model, structures)
        if not difference <= AGREEMENT[model.dtype]:
            raise CrackError(
                f"the export answers otherwise than the model: by {difference:.1e} of "
                f"its forces, at most {AGREEMENT[model.dtype]:.0e} is rounding; no "
                "file was written; please report it with the model"
            )
        write_atomically(target, file.read_bytes())
    return difference


class AtomicEnergies(nn.Module):
    """The part that is traced: energies of atoms from edges, sorted by receiver.

    Args:
        model: it is copied, and its constants become buffers: they move to a device
            with the weights then.
    """

    def __init__(self, model: ForceField) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).requires_grad_(requires_grad=False)
        for module in self.model.modules():
            names = list(module._exact) if isinstance(module, ExactConstants) else []
            for name in names:
                values = module.__dict__.pop(name)
                module.register_buffer(name, values)
        for name in ("_element_references", "_isolated_difference"):
            self.model.register_buffer(name, self.model.__dict__.pop(name))

    def forward(
        self,
        vectors: Tensor,
        senders: Tensor,
        receivers: Tensor,
        numbers: Tensor,
        mask: Tensor,
        filled: Tensor,
    ) -> Tensor:
        """Return energies of atoms in eV for columns of `Edges`, vectors in float64."""
        vectors = vectors.to(self.model.dtype)
        edges = Edges(
            vectors=vectors,
            lengths=torch.linalg.vector_norm(vectors, dim=-1),
            senders=senders,
            receivers=receivers,
            numbers=numbers,
            mask=mask,
            filled=filled,
            compact=False,  # nothing may depend on the structure that is traced
        )
        return self.model.atomic_energies(edges)


class ExportedModel(nn.Module):
    """The part that is scripted: systems of metatomic to energies.

    Args:
        atomic_energies: traced.
        cutoff: Å.
    """

    def __init__(self, atomic_energies: nn.Module, cutoff: float) -> None:
        super().__init__()
        self.atomic_energies = atomic_energies
        self.neighbors = NeighborListOptions(cutoff, full_list=True, strict=True)

    @torch.jit.export
    def requested_neighbor_lists(self) -> list[NeighborListOptions]:
        """Return the one list that the network needs."""
        return [self.neighbors]

    def forward(
        self,
        systems: list[System],
        outputs: dict[str, ModelOutput],
        selected_atoms: Optional[Labels],  # noqa: UP045
    ) -> dict[str, TensorMap]:
        """Return the energy of systems or of their atoms, of selected atoms alone."""
        if "energy" not in outputs or len(systems) == 0:
            return torch.jit.annotate(dict[str, TensorMap], {})
        device = systems[0].positions.device
        numbers, vectors, receivers, senders, samples = [], [], [], [], []
        n_atoms = 0
        for index, system in enumerate(systems):
            pairs = system.get_neighbor_list(self.neighbors)
            places = torch.arange(len(system), device=device)
            samples.append(torch.stack([torch.full_like(places, index), places], dim=1))
            numbers.append(system.types.to(torch.int64))
            receivers.append(pairs.samples.column("first_atom") + n_atoms)
            senders.append(pairs.samples.column("second_atom") + n_atoms)
            vectors.append(pairs.values.reshape(-1, 3))
            n_atoms += len(system)
        energies = self.of_edges(
            torch.cat(vectors),
            torch.cat(senders).to(torch.int64),
            torch.cat(receivers).to(torch.int64),
            torch.cat(numbers),
        )
        labels = Labels(["system", "atom"], torch.cat(samples).to(torch.int32))
        if selected_atoms is not None:
            chosen = labels.select(selected_atoms)
            energies = energies[chosen]
            labels = Labels(["system", "atom"], labels.values[chosen])
        if outputs["energy"].sample_kind == "system":
            owners = labels.values[:, 0].to(torch.int64)
            zeros = energies.new_zeros(len(systems))
            energies = zeros.index_add(0, owners, energies)
            labels = Labels(
                ["system"], torch.arange(len(systems), device=device).reshape(-1, 1)
            )
        block = TensorBlock(
            values=energies.unsqueeze(-1),
            samples=labels,
            components=torch.jit.annotate(list[Labels], []),
            properties=Labels(["energy"], torch.zeros(1, 1, device=device).int()),
        )
        keys = Labels(["_"], torch.zeros(1, 1, device=device).int())
        return {"energy": TensorMap(keys, [block])}

    def of_edges(
        self, vectors: Tensor, senders: Tensor, receivers: Tensor, numbers: Tensor
    ) -> Tensor:
        """Return energies of atoms; edges in any order become rows of a table."""
        order = torch.argsort(receivers, stable=True)
        receivers = receivers[order]
        counts = torch.bincount(receivers, minlength=numbers.shape[0])
        width = max(1, int(counts.max()))
        places = torch.arange(receivers.shape[0], device=receivers.device)
        slots = places - (counts.cumsum(0) - counts)[receivers]
        table = torch.arange(width, device=counts.device)
        mask = table.unsqueeze(0) < counts.unsqueeze(1)
        return self.atomic_energies(
            vectors[order],
            senders[order],
            receivers,
            numbers,
            mask,
            receivers * width + slots,
        )


def atomistic_model(model: ForceField, atoms: ase.Atoms) -> AtomisticModel:
    """Return the model of metatomic, traced on a structure.

    Args:
        model: an exportable one, in eval mode.
        atoms: with neighbors.
    """
    graph = build_graph(atoms, model.rule, dtype=model.dtype)
    edges = model.network.edges(graph, compact=True)
    filled = graph.mask.flatten().nonzero().squeeze(-1)
    traced = torch.jit.trace(
        AtomicEnergies(model).eval(),
        (
            edges.vectors.double().requires_grad_(),
            *(edges.senders, edges.receivers, edges.numbers, edges.mask, filled),
        ),
        check_trace=False,  # the file is checked
    )
    config, metadata = model.network.config, model.metadata
    capabilities = ModelCapabilities(
        outputs={
            "energy": ModelOutput(
                unit="eV", sample_kind="atom", description="total energy"
            )
        },
        atomic_types=list(metadata.elements),
        interaction_range=config.hops * config.cutoff,
        length_unit="angstrom",
        supported_devices=["cuda", "cpu"],
        dtype="float64",
    )
    module = torch.jit.script(ExportedModel(traced, config.cutoff).eval())
    return AtomisticModel(module, _description(model), capabilities)


def _description(model: ForceField) -> ModelMetadata:
    provenance = model.metadata.provenance
    citation = provenance.get("citation")
    return ModelMetadata(
        name=f"crack-md {model.metadata.sha256[:12]}",
        description=f"{model.network.config.summary}; teacher: "
        f"{provenance.get('teacher', 'not stated')}; licence: "
        f"{provenance.get('licence', 'not stated')}; SHA-256 of the model: "
        f"{model.metadata.sha256}",
        references={"model": [str(citation)]} if citation else {},
    )


def sample_structures(model: ForceField) -> list[ase.Atoms]:
    """Return rattled crystals of the model's elements, and an atom alone."""
    alone = ase.Atoms(chemical_symbols[model.metadata.elements[0]])
    return [*rattled_crystals(model), alone]


def largest_difference(
    file: Path, model: ForceField, structures: Sequence[ase.Atoms]
) -> float:
    """Return how far a file is from the model, relative to its largest values.

    Args:
        file: exported.
        model: what it was exported from.
        structures: for energies and forces, and stresses where those have a meaning.
    """
    calculator = MetatomicCalculator(file, check_consistency=True, device="cpu")
    largest = 0.0
    for atoms in structures:
        periodic = bool(atoms.pbc.all())
        graph = build_graph(atoms, model.rule, dtype=model.dtype)
        expected = model(graph, stress=periodic)
        atoms = atoms.copy()
        atoms.calc = calculator
        pairs = [
            (atoms.get_potential_energy(), expected.energy, expected.node_energy),
            (atoms.get_forces(), expected.forces, expected.forces),
        ]
        if periodic:
            stress = atoms.get_stress(voigt=False)[None]
            pairs.append((stress, expected.stress, expected.stress))
        for found, right, scale in pairs:
            gap = np.abs(found - right.detach().numpy()).max()
            largest = max(largest, gap / max(float(scale.abs().max()), 1e-3))
    return largest
