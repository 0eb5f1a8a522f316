"""Data that is read once and serves every run of a process."""

import json
from collections.abc import Hashable, Sequence
from pathlib import Path

from crack_md.data.dataset import LabelledDataset, LabelledStructure, read_dataset
from crack_md.errors import DataError
from crack_md.models.force_field import ForceField
from crack_md.training.build import build_frames
from crack_md.training.compare.config import EvaluateConfig
from crack_md.training.config import TrainConfig
from crack_md.training.evaluate import known_frames
from crack_md.training.frames import Frames
from crack_md.training.source import TrainingData, read_training_data, without

MAX_FRAMES = 6
"""Sets of frames with graphs that are kept: training, validation and evaluation of two
architectures."""


class DataCache:
    """Files by path, training data by what chooses it, graphs by rule and frames.

    Reading thousands of frames and building their graphs takes as long as hundreds of
    steps of a small student.
    """

    def __init__(self) -> None:
        self._datasets: dict[Path, LabelledDataset] = {}
        self._training: dict[str, TrainingData] = {}
        self._frames: dict[Hashable, Frames] = {}

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
        known = known_frames(student, without(chosen, config.data.leave_out))
        if not known:
            raise DataError(
                f"{wanted.path} has no frames of split '{wanted.split}' with elements "
                "that the student knows; choose another evaluate.split or evaluate.path"
            )
        if wanted.max_frames is not None and wanted.max_frames < len(known):
            count = wanted.max_frames
            known = [known[index * len(known) // count] for index in range(count)]
        return self.frames(known, student)
