"""Labels of an online teacher: once for all frames, or at every step.

For labels that are too large to keep. The teacher stands beside the objective, not
within: it is never trained and never saved.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from crack_md.data.dataset import (
    LabelledStructure,
    fingerprint,
    read_dataset,
    read_metadata,
    to_row,
)
from crack_md.data.labelling import LabelRequest, ask
from crack_md.data.parallel import first_rank_first
from crack_md.data.writer import RowWriter
from crack_md.models.force_field import Prediction
from crack_md.models.teachers import Teacher
from crack_md.models.teachers.base import STEP_A, draw_coordinates
from crack_md.models.teachers.equiformer import EquiformerTeacher
from crack_md.training.data.frames import Batch, Frames, JacobianBatch

Ask = Callable[[Int[Tensor, " structure"], Float[Tensor, "atom 3"] | None], Prediction]
"""What a teacher says about frames, their atoms moved by so many Å."""


class OnlineLabels:
    """Labels of drawn frames, fresh from a teacher.

    Args:
        teacher: Who is asked; EquiformerV2 answers from graphs that are built once.
        structures: The frames that training draws from.
        device: Where the teacher's answers go.
        seed: Chooses, with step and frame, which rows of the Jacobian are asked for.
        n_rows: Rows of the force Jacobian per structure; each costs two more answers.
        highest_degree: Node features are kept up to this degree.
        autocast_dtype: Precision of an EquiformerV2 teacher's matrix products.
    """

    def __init__(
        self,
        teacher: Teacher,
        structures: Sequence[LabelledStructure],
        *,
        device: torch.device,
        seed: int = 0,
        n_rows: int = 0,
        highest_degree: int = 0,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        self._device, self._seed, self._n_rows = device, seed, n_rows
        self._n_coefficients = (highest_degree + 1) ** 2
        self._structures = structures
        self._ask: Ask = (
            _from_graphs(teacher, structures, device, autocast_dtype)
            if isinstance(teacher, EquiformerTeacher)
            else _from_atoms(teacher, structures, device)
        )

    def __call__(
        self, batch: Batch, frames: Int[Tensor, " structure"], *, step: int
    ) -> Batch:
        """Return the batch of these frames with the teacher's labels."""
        answer = self._ask(frames, None)
        features = answer.node_features[:, : self._n_coefficients]
        batch = batch._replace(teacher=answer._replace(node_features=features))
        if not self._n_rows:
            return batch
        return batch._replace(jacobian=self._rows(batch, frames, step))

    def _rows(self, batch: Batch, frames: Tensor, step: int) -> JacobianBatch:
        """Return central differences along coordinates of free atoms."""
        sizes = batch.labels.sizes.cpu()
        first = sizes.cumsum(dim=0) - sizes
        drawn = [self._coordinates(frame, step) for frame in frames.tolist()]
        atom = torch.stack([atoms for atoms, _ in drawn]) + first.unsqueeze(1)
        axis = torch.stack([axes for _, axes in drawn])
        values = []
        for row in range(self._n_rows):
            move = torch.zeros(int(sizes.sum()), 3, dtype=torch.float64)
            move[atom[:, row], axis[:, row]] = STEP_A
            ahead, behind = (self._ask(frames, sign * move).forces for sign in (1, -1))
            values.append((ahead - behind) / (2 * STEP_A))
        return JacobianBatch(
            atom.to(self._device), axis.to(self._device), torch.stack(values)
        )

    def _coordinates(self, frame: int, step: int) -> tuple[Tensor, Tensor]:
        """Return atoms and axes; the same ones whichever process asks."""
        random = np.random.default_rng([self._seed, step, frame])
        atoms, axes = draw_coordinates(
            self._structures[frame].free, self._n_rows, random
        )
        return torch.from_numpy(atoms), torch.from_numpy(axes)


def _from_graphs(
    teacher: EquiformerTeacher,
    structures: Sequence[LabelledStructure],
    device: torch.device,
    autocast_dtype: torch.dtype | None,
) -> Ask:
    model = teacher.model.to(device)
    graphs = Frames(structures, model.rule, dtype=model.dtype, periodic=True)

    def ask(frames: Tensor, move: Tensor | None) -> Prediction:
        graph = graphs.batch(frames, device=device).graph
        if move is not None:
            positions = graph.positions + move.to(graph.positions)
            graph = graph._replace(positions=positions)
        with torch.no_grad(), _autocast(device, autocast_dtype):
            answer = model(graph)
        return answer._replace(node_features=answer.node_features.float())

    return ask


def _from_atoms(
    teacher: Teacher, structures: Sequence[LabelledStructure], device: torch.device
) -> Ask:
    def ask(frames: Tensor, move: Tensor | None) -> Prediction:
        chosen = [structures[frame].atoms for frame in frames.tolist()]
        if move is not None:
            ends = np.cumsum([len(one) for one in chosen])
            moves = np.split(move.numpy(), ends[:-1])
            chosen = [_moved(*pair) for pair in zip(chosen, moves, strict=True)]
        labels = teacher.predict(chosen)
        energy = torch.tensor([one.energy for one in labels], dtype=torch.float64)
        forces = _joined([one.forces for one in labels])
        assert forces is not None
        features = _joined([one.node_features for one in labels])
        if features is None:
            features = forces.new_zeros(len(forces), 1, 0)
        atomic = _joined([one.node_energy for one in labels], torch.float64)
        return Prediction(
            energy.to(device),
            forces.to(device),
            None,
            features.to(device),
            None if atomic is None else atomic.to(device),
        )

    return ask


def _moved(atoms: Atoms, move: NDArray[np.float64]) -> Atoms:
    moved = atoms.copy()
    moved.positions += move
    return moved


def _joined(
    arrays: Sequence[NDArray[np.floating] | None], dtype: torch.dtype = torch.float32
) -> Tensor | None:
    """Return the rows of all structures, None where one has none."""
    given = [array for array in arrays if array is not None]
    if len(given) < len(arrays):
        return None
    return torch.from_numpy(np.concatenate(given)).to(dtype)


def _autocast(
    device: torch.device, dtype: torch.dtype | None
) -> AbstractContextManager[object]:
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


CHUNK = 16
"""Structures per question to the teacher; an interrupted start loses at most these."""


def label(
    frames: Sequence[LabelledStructure], teacher: Teacher, wanted: LabelRequest
) -> tuple[LabelledStructure, ...]:
    """Return the frames with fresh labels of the teacher."""
    # as rows, which know the free atoms: these have rows in the Jacobian
    answers = ask(teacher, [to_row(frame) for frame in frames], wanted)
    return tuple(
        dataclasses.replace(frame, teacher=answer)
        for frame, answer in zip(frames, answers, strict=True)
    )


def label_once(
    frames: Sequence[LabelledStructure],
    teacher: Teacher,
    wanted: LabelRequest,
    path: Path,
) -> tuple[LabelledStructure, ...]:
    """Return the frames with the teacher's labels, from the file if they are there.

    The first process of a run asks the teacher, the others read what it wrote.

    Args:
        frames: What to label.
        teacher: Asked where the file is missing, of other frames or another teacher.
        wanted: What it is asked for.
        path: A dataset; written in chunks, so that a stopped run goes on with the next.
    """
    job = {
        "teacher_sha256": teacher.sha256,
        "frames": fingerprint(frames),
        "wanted": wanted.record,
    }
    with first_rank_first() as is_first:
        if is_first and not (path.exists() and read_metadata(path) == job):
            _write(frames, teacher, wanted, path, job)
    labels = [row.teacher for row in read_dataset(path).structures]
    return tuple(
        dataclasses.replace(frame, teacher=known)
        for frame, known in zip(frames, labels, strict=True)
    )


def _write(
    frames: Sequence[LabelledStructure],
    teacher: Teacher,
    wanted: LabelRequest,
    path: Path,
    job: dict[str, Any],
) -> None:
    writer = RowWriter(path, job=job, overwrite=True)
    for chunk in _chunks(frames[writer.done :]):
        rows = [to_row(frame) for frame in label(chunk, teacher, wanted)]
        writer.append(rows, done=writer.done + len(chunk))
    writer.finish(job)


def _chunks(
    frames: Sequence[LabelledStructure],
) -> Iterator[Sequence[LabelledStructure]]:
    for start in range(0, len(frames), CHUNK):
        yield frames[start : start + CHUNK]
