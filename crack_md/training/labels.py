"""Labels of an online teacher: asked for once, kept in a file of the run folder."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from crack_md.data.dataset import (
    LabelledStructure,
    fingerprint,
    read_dataset,
    read_metadata,
    to_row,
)
from crack_md.data.wanted import Wanted, ask
from crack_md.data.writer import RowWriter
from crack_md.models.teachers import Teacher
from crack_md.training.parallel import first_rank_first

CHUNK = 16
"""Structures per question to the teacher; an interrupted start loses at most these."""


def label(
    frames: Sequence[LabelledStructure], teacher: Teacher, wanted: Wanted
) -> tuple[LabelledStructure, ...]:
    """Return the frames with fresh labels of the teacher."""
    # as rows, which know the free atoms: these have rows in the Jacobian
    answers = ask(teacher, [to_row(frame) for frame in frames], wanted)
    return tuple(
        dataclasses.replace(frame, teacher=answer)
        for frame, answer in zip(frames, answers, strict=True)
    )


def label_once(
    frames: Sequence[LabelledStructure], teacher: Teacher, wanted: Wanted, path: Path
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
        "wanted": asdict(wanted),
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
    wanted: Wanted,
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
