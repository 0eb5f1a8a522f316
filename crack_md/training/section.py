"""What every part of a configuration file has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the file: immutable, strict about its keys, and finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
