"""UMA and eSEN, models of fairchem-core v2, as teachers.

A checkpoint is named with the task that it shall predict, `PATH.pt#oc20`; published
models go by their name, `uma-s-1p2#oc20`. A task stands for a level of theory. What the
published models call energy is the total energy in every task, in oc20 too: their OC20
was computed anew for it.
"""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor

from crack_md.errors import MissingDependencyError, StructureError, TeacherError
from crack_md.models.teachers.base import (
    TeacherLabels,
    batches,
    check_elements,
    file_sha256,
)
from crack_md.models.teachers.fairchem_files import FairchemFile, read_fairchem_file

SUFFIXES = (".pt", ".pth", ".ckpt")


def locate(name: str) -> Path:
    """Return the checkpoint that a path or the name of a published model stands for."""
    path = Path(name)
    if path.suffix in SUFFIXES and not path.is_file():
        raise TeacherError(f"no fairchem checkpoint at {path}; expected a .pt file")
    try:
        from fairchem.core.calculate import pretrained_mlip
    except ImportError as error:
        raise MissingDependencyError.of(
            "fairchem-core", extra="fairchem", purpose="a fairchem teacher"
        ) from error
    if path.is_file():
        return path
    if name not in pretrained_mlip.available_models:
        raise TeacherError(
            f"no fairchem model '{name}': expected the path of a checkpoint or one of "
            + ", ".join(pretrained_mlip.available_models)
        )
    try:
        return Path(pretrained_mlip.pretrained_checkpoint_path_from_name(name))
    except Exception as error:  # network, licence, token, disk: a page each
        raise TeacherError(
            f"cannot download the fairchem model '{name}': {_brief(error)}; accept its "
            "licence on huggingface.co and log in (hf auth login), or download the "
            "file elsewhere and name its path"
        ) from error


def predict_unit(
    file: FairchemFile, task: str, device: torch.device, dtype: torch.dtype
) -> Any:
    """Return fairchem's predictor of a screened checkpoint."""
    from fairchem.core.units.mlip_unit import InferenceSettings, MLIPPredictUnit

    settings = InferenceSettings(
        activation_checkpointing=device.type == "cuda",  # there memory is short
        base_precision_dtype=dtype,
        auto_add_default_untrained_tasks=False,  # nobody asks for stress
        predict_untrained_forces=set() if task in file.datasets("forces") else {task},
    )
    try:
        with same_random_numbers(device), TemporaryDirectory() as folder:
            copy = Path(folder) / file.path.name
            file.write_copy(copy)
            return MLIPPredictUnit(
                str(copy), device=device.type, inference_settings=settings
            )
    except Exception as error:  # hydra, torch and fairchem have many of their own
        raise TeacherError(
            f"fairchem cannot build the model of {file.path}: {_brief(error)}; "
            "expected a checkpoint of UMA or eSEN that fairchem-core 2.24 can read"
        ) from error


@contextmanager
def same_random_numbers(
    device: torch.device, *, seed: int | None = None
) -> Iterator[None]:
    """Undo that fairchem seeds and draws from every generator of the process.

    Args:
        device: Whose generator is restored beside that of the CPU.
        seed: Of PyTorch's generators inside.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if seed is not None:
            torch.manual_seed(seed)
        yield
    random.setstate(python)
    np.random.set_state(numpy)  # noqa: NPY002


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"


MULTIPLICITY = {"omol": 1}
"""Spin of a structure that names none; models have seen 0 alone in other tasks."""


class FairchemTeacher:
    """A fairchem model that labels structures in batches.

    Net charge and spin multiplicity of a structure are its `info["charge"]` and
    `info["spin"]`, as in fairchem.

    Args:
        spec: Path of a checkpoint or name of a published model, with `#TASK` behind
            it if the model knows several.
        device: Where to evaluate.
        dtype: Of weights and positions; energies are summed in float64 anyway.
        all_degrees: Keep every degree of the node features; otherwise l = 0 alone.
        atoms_per_batch: How many atoms share one forward pass.
    """

    has_features = True
    energy_reference = "total"

    def __init__(
        self,
        spec: str,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        all_degrees: bool = False,
        atoms_per_batch: int | None = None,
    ) -> None:
        name, _, task = spec.partition("#")
        path = locate(name)
        file = read_fairchem_file(path)
        self.task = file.choose(task or None)
        only = len(file.datasets()) == 1
        self.name = path.stem if only else f"{path.stem}#{self.task}"
        self.sha256 = _fingerprint(path, None if only else self.task)
        self.dtype, self.all_degrees = dtype, all_degrees
        self.device = torch.device(device)
        self.atoms_per_batch = atoms_per_batch or (
            100 if self.device.type == "cpu" else 1000
        )
        # Any: the package is optional and brings few types
        self.unit: Any = predict_unit(file, self.task, self.device, dtype)
        """Of fairchem-core; it holds the network."""
        (self._energy,) = (
            one
            for one in self.unit.dataset_to_tasks[self.task]
            if one.property == "energy"
        )
        # fairchem gives forces that it derives itself the normalizer of the energies,
        # whose mean is none of theirs
        derived = self.task not in file.datasets("forces")
        self._force_excess = float(self._energy.normalizer.mean) if derived else 0.0
        self.elements: frozenset[int] | None = self._known_elements()

    def predict(self, atoms: Sequence[Atoms]) -> list[TeacherLabels]:
        """Return energies, forces, node features and node energies of structures."""
        for one in atoms:
            check_elements(one, self)
        given = iter(atoms)
        return [
            labels
            for batch in batches(atoms, atoms_per_batch=self.atoms_per_batch)
            for labels in self._predict_batch(
                [self._charged(*pair) for pair in zip(batch, given, strict=False)]
            )
        ]

    def _predict_batch(self, structures: list[Atoms]) -> list[TeacherLabels]:
        # the roll of the edge frames is drawn at random: the same one every time
        drawn = same_random_numbers(self.device, seed=0)
        with drawn, self._captured() as (embeddings, atomic):
            answer = self.unit.predict(self._collated(structures))
        sizes = [len(one) for one in structures]
        energies = answer["energy"].detach().double().flatten().tolist()
        forces = answer["forces"].detach().double() - self._force_excess
        features = embeddings[-1].float()
        if not self.all_degrees:
            features = features[:, :1]
        return [
            TeacherLabels(
                energy=energy,
                forces=force.cpu().numpy(),
                node_features=feature.cpu().numpy(),
                node_energy=node_energy,
            )
            for energy, force, feature, node_energy in zip(
                energies,
                forces.split(sizes),
                features.split(sizes),
                self._node_energies(structures, energies, atomic),
                strict=True,
            )
        ]

    def _charged(self, periodic: Atoms, given: Atoms) -> Atoms:
        """Return the periodic structure with charge and spin of the given one."""
        for key, usual in (("charge", 0), ("spin", MULTIPLICITY.get(self.task, 0))):
            value = given.info.get(key, usual)
            whole = isinstance(value, float) and value.is_integer()
            periodic.info[key] = int(value) if whole else value
        try:
            self.unit.validate_atoms_data(periodic, self.task)
        except (TypeError, ValueError) as error:
            raise StructureError(f"{given.get_chemical_formula()}: {error}") from error
        return periodic

    def _collated(self, structures: list[Atoms]) -> Any:
        from fairchem.core.datasets.atomic_data import (
            AtomicData,
            atomicdata_list_to_batch,
        )

        return atomicdata_list_to_batch(
            [
                AtomicData.from_ase(
                    one,
                    task_name=self.task,
                    r_data_keys=["charge", "spin"],
                    target_dtype=self.dtype,
                )
                for one in structures
            ]
        )

    @contextmanager
    def _captured(self) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Catch what enters the heads, and what energy heads say of single atoms.

        The (atom, coefficient, channel) embeddings come behind the last norm; the
        energy block reads coefficient 0 of them. Its (atom,) answers are in units of
        the normalizer, without references of the elements.
        """
        embeddings: list[Tensor] = []
        atomic: list[Tensor] = []
        network = self.unit.model.module
        blocks = [
            module
            for name, module in network.output_heads.named_modules()
            if name.endswith("energy_block")
        ]
        hooks = [
            network.backbone.register_forward_hook(
                lambda *call: embeddings.append(call[-1]["node_embedding"].detach())
            ),
            *(
                block.register_forward_hook(
                    lambda *call: atomic.append(call[-1].detach().flatten())
                )
                for block in blocks
            ),
        ]
        try:
            yield embeddings, atomic
        finally:
            for hook in hooks:
                hook.remove()

    def _node_energies(
        self,
        structures: list[Atoms],
        energies: list[float],
        atomic: list[Tensor],
    ) -> list[NDArray[np.float64] | None]:
        """Return (atom,) energies in eV of the head whose parts add up to the energy.

        None where no head does: heads of other tasks, and means over atoms.
        """
        normalizer = self._energy.normalizer
        scale, mean = float(normalizer.rmsd), float(normalizer.mean)
        sizes = [len(one) for one in structures]
        for answers in atomic:
            found = []
            parts = answers.double().cpu().split(sizes)
            for one, part in zip(structures, parts, strict=True):
                references = self._references[one.numbers]
                found.append(scale * part.numpy() + mean / len(one) + references)
            sums = [one.sum() for one in found]
            if np.allclose(sums, energies, rtol=1e-6, atol=1e-4):
                return [*found]
        return [None] * len(structures)

    @property
    def _references(self) -> NDArray[np.float64]:
        """(element,) in eV, by atomic number; zeros where the task has none."""
        stored = self._energy.element_references
        if stored is None:
            return np.zeros(self.unit.model.module.backbone.max_num_elements)
        return np.asarray(stored.element_references.double().cpu().numpy())

    def _known_elements(self) -> frozenset[int]:
        """Return what the model has seen: reference energies are fitted to the rest."""
        n_elements = self.unit.model.module.backbone.max_num_elements
        references = self._references[:n_elements]
        if self._energy.element_references is None:
            return frozenset(range(1, n_elements))
        # absent elements are left with the round-off of a linear fit
        return frozenset(np.flatnonzero(np.abs(references) > 1e-6).tolist()) - {0}


def _fingerprint(path: Path, task: str | None) -> str:
    digest = file_sha256(path)
    return hashlib.sha256(f"{digest}#{task}".encode()).hexdigest() if task else digest
