"""Checkpoints of fairchem-core v2, read without running anything they hold.

fairchem unpickles whatever a file contains and then calls whatever its configuration
names (`_target_`, and classes under `model`, `module`, `head_cls`): both ways a file
can run any command. Here the inert reader of `models.archives` takes the file apart,
every name in it has to be on a list, and fairchem is handed a copy that holds nothing
but plain containers, numbers and tensors.
"""

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crack_md.errors import CheckpointError, TeacherError
from crack_md.models.archives import ArchiveReader, Foreign

CHECKPOINT = "fairchem.core.units.mlip_unit.api.inference.MLIPInferenceCheckpoint"
_CONTAINERS = {"omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"}
_NODES = {
    f"omegaconf.nodes.{kind}Node"
    for kind in ("Any", "Boolean", "Float", "Integer", "String")
}
_TYPES = {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")  # the latter by Python 2's protocol
    for name in ("bool", "dict", "float", "int", "list", "long", "str", "unicode")
}
_PICKLED = {
    CHECKPOINT,
    *_CONTAINERS,
    *_NODES,
    *_TYPES,
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "typing.Any",
}
"""Classes that may be pickled in a file; they are recognised, never called."""

_CALLED = {
    "hydra",
    "escnmd_backbone",
    "escnmd_moe_backbone",
    "fairchem.core.models.base.HydraModel",
    *(
        f"fairchem.core.models.uma.{name}"
        for name in (
            "escn_md.eSCNMDBackbone",
            "escn_md.Linear_Energy_Head",
            "escn_md.Linear_Force_Head",
            "escn_md.MLP_EFS_Head",
            "escn_md.MLP_Energy_Head",
            "escn_md.MLP_Stress_Head",
            "escn_moe.DatasetSpecificMoEWrapper",
            "escn_moe.DatasetSpecificSingleHeadWrapper",
            "escn_moe.eSCNMDMoeBackbone",
        )
    ),
    "fairchem.core.modules.normalization.element_references.ElementReferences",
    "fairchem.core.modules.normalization.normalizer.Normalizer",
    "fairchem.core.units.mlip_unit.mlip_unit.OutputSpec",
    "fairchem.core.units.mlip_unit.mlip_unit.Task",
    "torch.DoubleTensor",
    "torch.FloatTensor",
}
"""What fairchem may call to build a model. Whole names: hydra follows attributes, and
any module of fairchem leads on to `os`."""

_CALLING_KEYS = {"_target_", "model", "module", "head_cls"}
_LOADING_KEYS = {"finetune_config", "starting_checkpoint", "file"}
_DOTTED_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_TASK_KEYS = {
    "_target_",
    "name",
    "level",
    "property",
    "out_spec",
    "normalizer",
    "element_references",
    "datasets",
    "inference_only",
}
"""What prediction needs of a task; losses and metrics stay behind."""

_DEEPEST = 50


@dataclass(frozen=True)
class FairchemFile:
    """What a fairchem checkpoint holds, screened."""

    path: Path
    model: dict[str, Any]
    """Configuration of backbone and heads."""
    tasks: list[dict[str, Any]]
    """Which property of which datasets each output is, in which units."""
    weights: dict[str, Tensor]
    """Moving averages of the weights; fairchem predicts with these alone."""

    def datasets(self, target: str = "energy") -> list[str]:
        """Return the datasets of which the model knows a property, sorted."""
        return sorted(
            {
                dataset
                for task in self.tasks
                if task.get("property") == target
                for dataset in task.get("datasets", ())
            }
        )

    def choose(self, task: str | None) -> str:
        """Return the task to predict: the one that is asked for, or the only one.

        Raises:
            TeacherError: There is no such task, or none was named among several.
        """
        known = self.datasets()
        if task is None and len(known) == 1:
            return known[0]
        if task in known:
            return task
        problem = f"has no task '{task}'" if task else "needs the name of a task"
        raise TeacherError(
            f"{self.path} {problem}; it knows {', '.join(known) or 'no energies'}: "
            f"name one as fairchem:{self.path}#{known[0] if known else 'TASK'}"
        )

    def write_copy(self, path: Path) -> None:
        """Write a checkpoint for fairchem with nothing but what was screened."""
        from fairchem.core.units.mlip_unit.api.inference import MLIPInferenceCheckpoint

        content = MLIPInferenceCheckpoint(
            model_config=self.model,
            model_state_dict={},
            ema_state_dict=self.weights,
            tasks_config=self.tasks,
        )
        torch.save(content, path)


def read_fairchem_file(path: Path) -> FairchemFile:
    """Return the screened content of a fairchem v2 checkpoint.

    Raises:
        TeacherError: The file is missing, no such checkpoint, or names something that
            is not on the lists above.
    """
    if not path.is_file():
        raise TeacherError(f"no fairchem checkpoint at {path}; expected a .pt file")
    content, foreign = _read(path)
    unknown = sorted(foreign - _PICKLED)
    if unknown:
        raise TeacherError(
            f"{path} holds pickled objects of {', '.join(unknown)}, which could run "
            "any code; nothing was run, and the file is refused. Take a checkpoint "
            "from its authors, or write it again with plain values in their place"
        )
    if not isinstance(content, Foreign) or content.qualified_name != CHECKPOINT:
        raise TeacherError(
            f"{path} is no inference checkpoint of fairchem v2 (inference_ckpt.pt); "
            "EquiformerV2 checkpoints of OCP and fairchem v1 are named eqv2:PATH"
        )
    parts = {key: _plain(value, path) for key, value in content.contents.items()}
    model, tasks = parts.get("model_config"), parts.get("tasks_config")
    weights = parts.get("ema_state_dict")
    if not (isinstance(model, dict) and isinstance(tasks, list)):
        raise TeacherError(f"{path} lacks the configuration of its model or tasks")
    if not (isinstance(weights, dict) and weights) or not all(
        isinstance(tensor, Tensor) for tensor in weights.values()
    ):
        raise TeacherError(
            f"{path} lacks averaged weights (ema_state_dict), with which fairchem "
            "predicts; save it with them"
        )
    tasks = [
        {key: value for key, value in task.items() if key in _TASK_KEYS}
        for task in tasks
        if isinstance(task, dict)
    ]
    for part in (model, tasks):
        _check_names(part, path)
    return FairchemFile(path, model, tasks, weights)


def _read(path: Path) -> tuple[object, set[str]]:
    if not zipfile.is_zipfile(path):
        raise TeacherError(
            f"{path} is no PyTorch archive, or cut short; expected a checkpoint as "
            "fairchem v2 saves it"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            reader = ArchiveReader(archive)
            return reader.load(), reader.foreign
    except CheckpointError as error:
        raise TeacherError(str(error)) from error
    except Exception as error:  # any byte of the file may be wrong
        raise TeacherError(
            f"{path} is damaged ({type(error).__name__}: {error}); copy or download "
            "it again"
        ) from error


def _plain(value: object, path: Path, depth: int = 0) -> Any:
    """Return the value as containers, numbers, text and tensors."""
    if depth > _DEEPEST:
        raise TeacherError(f"{path} is nested beyond {_DEEPEST} levels; it is damaged")
    if isinstance(value, Foreign):
        held = "_content" if value.qualified_name in _CONTAINERS else "_val"
        if held not in value.contents:
            raise TeacherError(
                f"{path} holds an object of {value.qualified_name} where a plain value "
                "belongs"
            )
        return _plain(value.contents[held], path, depth + 1)
    if isinstance(value, dict):
        return {str(key): _plain(item, path, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, path, depth + 1) for item in value]
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    raise TeacherError(f"{path} holds a {type(value).__name__} in its configuration")


def _check_names(value: object, path: Path, key: object = None) -> None:
    """Refuse names outside the list, other files, and references to be resolved."""
    if key in _LOADING_KEYS and value is not None:
        raise TeacherError(
            f"{path} would load another file ('{key}': {value!r}); export it complete"
        )
    if isinstance(value, dict):
        for name, item in value.items():
            _check_names(item, path, name)
    elif isinstance(value, list):
        for item in value:
            _check_names(item, path, key)
    elif value not in _CALLED and (
        key in _CALLING_KEYS or (isinstance(value, str) and _names_code(value))
    ):
        raise TeacherError(
            f"{path} would call '{value}' ('{key}' in its configuration), which is no "
            "part of the fairchem models that this package knows; nothing was run, and "
            "the file is refused"
        )


def _names_code(text: str) -> bool:
    return "${" in text or _DOTTED_NAME.fullmatch(text) is not None
