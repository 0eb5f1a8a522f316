"""The numbers of a result that tables and figures show, and where they stand."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Result = Mapping[str, Any]
"""What one run has written down."""


class Column(NamedTuple):
    """A number of a result."""

    key: str
    place: str
    """Where it stands in a result."""
    title: str
    digits: int
    best: str = ""
    """"low" or "high" for errors and scores, empty for what is no contest."""


COLUMNS = {
    column.key: column
    for column in (
        Column("n_weights", "n_weights", "parameters", 0),
        Column("embedding_mae", "labels.all.embedding_mae", "emb. MAE", 3, "low"),
        Column(
            "embedding_cosine", "labels.all.embedding_cosine", "emb. cos", 3, "high"
        ),
        Column(
            "embedding_unexplained",
            "embedding_unexplained",
            "emb. unexplained",
            3,
            "low",
        ),
        Column("energy_mae_meV", "labels.all.energy_mae_meV", "E / meV", 0, "low"),
        Column(
            "energy_mae_meV_per_atom",
            "labels.all.energy_mae_meV_per_atom",
            "E / meV/atom",
            2,
            "low",
        ),
        Column(
            "force_mae_meV_per_A",
            "labels.all.force_mae_meV_per_A",
            "F / meV/Å",
            1,
            "low",
        ),
        *(
            Column(f"{group}_{key}", f"labels.{group}.{key}", title, digits, "low")
            for group in ("relaxed", "unrelaxed")
            for key, title, digits in (
                ("energy_mae_meV_per_atom", f"E {group} / meV/atom", 2),
                ("force_mae_meV_per_A", f"F {group} / meV/Å", 1),
            )
        ),
        Column(
            "teacher_energy_mae_meV_per_atom",
            "teacher.all.energy_mae_meV_per_atom",
            "E to teacher / meV/atom",
            2,
            "low",
        ),
        Column(
            "teacher_force_mae_meV_per_A",
            "teacher.all.force_mae_meV_per_A",
            "F to teacher / meV/Å",
            1,
            "low",
        ),
        Column("efwt_percent", "labels.all.efwt_percent", "EFwT / %", 1, "high"),
        Column("head_mae", "teacher.all.embedding_mae", "P MAE", 3, "low"),
        Column("head_cosine", "teacher.all.embedding_cosine", "P cos", 3, "high"),
        Column("steps", "steps", "steps", 0),
        Column("step_ms", "step_ms", "ms/step", 0),
        Column("wall_s", "wall_s", "s", 0),
    )
}
PAIRED = (
    "energy_mae_meV_per_atom",
    "force_mae_meV_per_A",
    "unrelaxed_force_mae_meV_per_A",
    "embedding_unexplained",
)
"""What methods are compared in, seed by seed."""


def number(result: Result, place: str) -> float | None:
    """Return the number at a dotted place of a result, None where there is none."""
    value: Any = result
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return None if value is None else float(value)
