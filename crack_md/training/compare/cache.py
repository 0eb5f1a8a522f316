"""Data that is read once and serves every run of a process."""

import dataclasses
import json
from collections.abc import Hashable, Sequence
from pathlib import Path

from crack_md.data.dataset import LabelledDataset, LabelledStructure, read_dataset
from crack_md.errors import DataError
from crack_md.models.force_field import ForceField
from crack_md.models.teachers import load_teacher
from crack_md.training.build import build_frames
from crack_md.training.compare.config import EvaluateConfig
from crack_md.training.config import OnlineTeacher, TrainConfig
from crack_md.training.evaluate import known_frames
from crack_md.training.frames import Frames
from crack_md.training.source import TrainingData, read_training_data, without

MAX_FRAMES = 6
"""Sets of frames with graphs that are kept: training, validation and evaluation of two
architectures."""
LABEL_CHUNK = 16
"""Frames that an online teacher is asked about at a time."""


class DataCache:
    """Files by path, training data by what chooses it, graphs by rule and frames.

    Reading thousands of frames and building their graphs takes as long as hundreds of
    steps of a small student.
    """

    def __init__(self) -> None:
        self._datasets: dict[Path, LabelledDataset] = {}
        self._training: dict[str, TrainingData] = {}
        self._frames: dict[Hashable, Frames] = {}
        self._labelled: dict[str, tuple[LabelledStructure, ...]] = {}

    def dataset(self, path: Path) -> LabelledDataset:
        """Return a labelled set."""
        if path not in self._datasets:
            self._datasets[path] = read_dataset(path)
        return self._datasets[path]

    def training_data(self, config: TrainConfig) -> TrainingData:
        """Return what `read_training_data` returns."""
        data = config.data
        sampled = data.max_frames is not None or data.validation_frames is not None
        key = json.dumps(
            [
                data.model_dump(mode="json"),
                None if config.teacher is None else config.teacher.model_dump(),
                sorted({label for loss in config.losses for label in loss.reads}),
                config.highest_degree,  # what losses need is checked when data is read
                config.run.seed if sampled else None,
            ]
        )
        if key not in self._training:
            self._training[key] = read_training_data(config, read=self.dataset)
        return self._training[key]

    def frames(
        self, structures: Sequence[LabelledStructure], student: ForceField
    ) -> Frames:
        """Return the structures with graphs of the student's neighbor rule."""
        key = (student.rule, tuple(map(id, structures)))
        if key not in self._frames:
            while len(self._frames) >= MAX_FRAMES:
                self._frames.pop(next(iter(self._frames)))
            self._frames[key] = build_frames(structures, student)
        # the latest goes last; Frames hold their structures, so an id stays theirs
        self._frames[key] = self._frames.pop(key)
        return self._frames[key]

    def evaluation_frames(
        self, wanted: EvaluateConfig, config: TrainConfig, student: ForceField
    ) -> Frames:
        """Return the frames to measure on.

        Frames that a recipe leaves out, or whose elements the student does not know,
        are not measured.

        Raises:
            DataError: No frames are left.
        """
        dataset = self.dataset(wanted.path)
        chosen = (
            dataset.structures
            if wanted.split == "all"
            else dataset.select(wanted.split)
        )
        known: Sequence[LabelledStructure] = known_frames(
            student, without(chosen, config.data.leave_out)
        )
        if not known:
            raise DataError(
                f"{wanted.path} has no frames of split '{wanted.split}' with elements "
                "that the student knows; choose another evaluate.split or evaluate.path"
            )
        if wanted.max_frames is not None and wanted.max_frames < len(known):
            count = wanted.max_frames
            known = [known[index * len(known) // count] for index in range(count)]
        if config.teacher is not None:
            known = self._asked(known, config.teacher, wanted)
        return self.frames(known, student)

    def _asked(
        self,
        frames: Sequence[LabelledStructure],
        asked: OnlineTeacher,
        wanted: EvaluateConfig,
    ) -> Sequence[LabelledStructure]:
        """Return the frames with labels of the online teacher that students follow."""
        key = f"{asked.spec} {wanted.model_dump_json()} {len(frames)}"
        if key not in self._labelled:
            teacher = load_teacher(asked.spec)
            answers = [
                labels
                for start in range(0, len(frames), LABEL_CHUNK)
                for labels in teacher.predict(
                    [one.atoms for one in frames[start : start + LABEL_CHUNK]]
                )
            ]
            self._labelled[key] = tuple(
                dataclasses.replace(frame, teacher=answer)
                for frame, answer in zip(frames, answers, strict=True)
            )
        return self._labelled[key]
