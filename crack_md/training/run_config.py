"""The sections ``optimizer`` and ``run`` of a training configuration."""

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator

from crack_md.section import Section


class OptimizerConfig(Section):
    """AdamW with warm-up, cosine, clipping and a moving average of weights."""

    lr: float = Field(gt=0)
    weight_decay: float = Field(default=1e-3, ge=0)
    warmup_steps: int = Field(default=0, ge=0)
    lr_end_factor: float = Field(default=0.01, ge=0, le=1)
    clip_norm: float = Field(default=100.0, gt=0)
    ema_decay: float = Field(default=0.999, ge=0, lt=1)


class RunConfig(Section):
    """Where, how long and on what."""

    folder: Path
    seed: int = 0
    batch_size: int | None = Field(default=None, ge=1)
    """Structures per optimizer step, over all processes and accumulated parts."""
    atoms_per_batch: int | None = Field(default=None, ge=1)
    """About so many atoms per optimizer step, in place of ``batch_size``."""
    accumulate: int = Field(default=1, ge=1)
    """Parts that a batch is cut into, where memory is short."""
    max_steps: int | None = Field(default=None, ge=1)
    max_seconds: float | None = Field(default=None, gt=0)
    """Training ends at the first of both, and the cosine with it."""
    log_every: int = Field(default=20, ge=1)
    validate_every: int = Field(default=500, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    checkpoint_every_s: float = Field(default=300.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    accelerator: Literal["auto", "cpu", "cuda", "gpu"] = "auto"
    """"auto" takes GPUs where there are some; "gpu" is another word for "cuda"."""
    devices: int = Field(default=1, ge=1)
    num_nodes: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _ends(self) -> "RunConfig":
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("give max_steps, max_seconds or both")
        if (self.batch_size is None) == (self.atoms_per_batch is None):
            raise ValueError("give either batch_size or atoms_per_batch")
        parts = self.accumulate * self.n_ranks
        if self.batch_size is not None and self.batch_size < parts:
            raise ValueError(
                f"batch_size {self.batch_size} is less than "
                f"accumulate x devices x num_nodes = {parts}: parts would be empty"
            )
        return self

    @property
    def n_ranks(self) -> int:
        """Return the number of processes."""
        return self.devices * self.num_nodes

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """Return the precision of matrix products, None for that of the weights."""
        return torch.bfloat16 if self.precision == "bfloat16" else None
