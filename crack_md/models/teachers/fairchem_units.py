"""From names of fairchem models to fairchem's own predictors."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from crack_md.errors import MissingDependencyError, TeacherError
from crack_md.models.teachers.fairchem_files import FairchemFile

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
