"""The measures of an evaluation as cells of a table."""

from crack_md.training.evaluate import Evaluation

METRICS = {
    "n_frames": ("frames", "frames", "{:d}"),
    "energy_mae_meV": ("E, meV", "E\nmeV", "{:.1f}"),
    "energy_mae_meV_per_atom": ("E, meV/atom", "E\nmeV/at", "{:.2f}"),
    "mean_energy_baseline_meV_per_atom": (
        "mean E, meV/atom",
        "mean E\nmeV/at",
        "{:.1f}",
    ),
    "force_mae_meV_per_A": ("F, meV/Å", "F\nmeV/Å", "{:.1f}"),
    "zero_force_baseline_meV_per_A": ("F = 0, meV/Å", "F = 0\nmeV/Å", "{:.1f}"),
    "efwt_percent": ("EFwT, %", "EFwT\n%", "{:.1f}"),
    "embedding_mae": ("P z, MAE", "P z\nMAE", "{:.3f}"),
    "embedding_cosine": ("P z, cosine", "P z\ncos", "{:.3f}"),
}
"""Measures by key: title, title for a narrow screen, and how to print them."""


def metric_rows(found: Evaluation) -> list[tuple[str, ...]]:
    """Return one row of cells per group of frames: all, relaxed or not, every kind.

    Kinds say how frames were made: those along a relaxation are seldom relaxed.
    """
    groups = {"all": found.all, "relaxed": found.relaxed, "unrelaxed": found.unrelaxed}
    groups |= {f"kind: {kind}": group for kind, group in found.kinds.items()}
    rows = []
    for name, group in groups.items():
        if group is None:
            continue
        values = group.as_dict()
        cells = [
            "–" if values[key] is None else form.format(values[key])
            for key, (_, _, form) in METRICS.items()
        ]
        rows.append((name, *cells))
    return rows
