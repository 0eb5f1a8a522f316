"""What every part of a configuration or recipe has in common."""

from typing import Annotated

from ase.data import atomic_numbers
from pydantic import AfterValidator, BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the file: immutable, strict about its keys, and finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _known_element(symbol: str) -> str:
    if symbol not in atomic_numbers or symbol == "X":
        raise ValueError(f"'{symbol}' is not a chemical element")
    return symbol


Element = Annotated[str, AfterValidator(_known_element)]
