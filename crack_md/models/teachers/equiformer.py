"""EquiformerV2 checkpoints, ours and imported, as teachers."""

from collections.abc import Sequence
from pathlib import Path

import torch
from ase import Atoms

from crack_md.errors import TeacherError
from crack_md.graph import batch_graphs
from crack_md.models.force_field import ForceField
from crack_md.models.teachers.base import TeacherLabels, file_sha256, predict_in_batches
from crack_md.neighbors import build_graph


class EquiformerTeacher:
    """A loaded force field that labels structures in batches.

    Args:
        model: The force field, as `load_model` returns it.
        name: How datasets call it.
        sha256: Fingerprint of its file.
        all_degrees: Keep every degree of the node features; otherwise l = 0 alone,
            which is what the crack loss compares.
        atoms_per_batch: How many atoms share one forward pass.
    """

    has_features = has_node_energy = True

    def __init__(
        self,
        model: ForceField,
        *,
        name: str,
        sha256: str,
        all_degrees: bool = False,
        atoms_per_batch: int = 200,
    ) -> None:
        self.model = model.eval()
        self.name = name
        self.sha256 = sha256
        self.all_degrees = all_degrees
        self.atoms_per_batch = atoms_per_batch
        self.energy_reference: str = model.metadata.energy_reference
        known = model.metadata.elements
        self.elements: frozenset[int] | None = frozenset(known) if known else None

    @classmethod
    def from_file(
        cls,
        path: Path | str,
        *,
        device: torch.device | str = "cpu",
        all_degrees: bool = False,
    ) -> "EquiformerTeacher":
        """Return the teacher stored in a checkpoint of any format we read."""
        from crack_md.models.checkpoint import load_model

        path = Path(path)
        if not path.is_file():
            raise TeacherError(f"no checkpoint at {path}; expected a model file")
        model = load_model(path, device=str(device))
        sha256 = file_sha256(path)
        return cls(model, name=path.stem, sha256=sha256, all_degrees=all_degrees)

    def predict(self, atoms: Sequence[Atoms]) -> list[TeacherLabels]:
        """Return energies, forces and node features of every structure."""
        return predict_in_batches(
            self, atoms, self._predict_batch, atoms_per_batch=self.atoms_per_batch
        )

    def _predict_batch(self, structures: list[Atoms]) -> list[TeacherLabels]:
        parameter = next(self.model.parameters())
        graph = batch_graphs(
            [
                build_graph(
                    one,
                    self.model.rule,
                    dtype=parameter.dtype,
                    device=parameter.device,
                )
                for one in structures
            ]
        )
        with torch.no_grad():
            prediction = self.model(graph)
        sizes = [len(one) for one in structures]
        features = prediction.node_features.detach().float()
        if not self.all_degrees:
            # a view would keep all degrees in memory
            features = features[:, :1].contiguous()
        atomic = prediction.node_energy
        assert atomic is not None, "a ForceField splits its energy into atoms"
        return [
            TeacherLabels(
                float(energy),
                forces.cpu().numpy(),
                feature.cpu().numpy(),
                node_energy=node_energy.cpu().numpy(),
            )
            for energy, forces, feature, node_energy in zip(
                prediction.energy.detach().tolist(),
                prediction.forces.detach().double().split(sizes),
                features.split(sizes),
                atomic.detach().split(sizes),
                strict=True,
            )
        ]
