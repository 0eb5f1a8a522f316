"""What every part of a configuration file has in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the file: immutable, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
