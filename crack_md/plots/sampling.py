"""Figures of a sampling check: the sample in blue over the reference in gray."""

from collections.abc import Sequence

import numpy as np
from ase import units
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from crack_md.plots.style import BLUE, GRID, INK, MUTED, ORANGE, RED
from crack_md.workflows.sampling.analysis import ENERGY, ENERGY_OF_MODEL
from crack_md.workflows.sampling.chains import SampledChains
from crack_md.workflows.sampling.check import MAX_RATIO, SamplingCheck
from crack_md.workflows.sampling.metrics import (
    DEPTH_KT,
    Comparison,
    Metric,
    free_energy,
)
from crack_md.workflows.sampling.molecule import energy_window

Array = NDArray[np.float64]
BAND_SIGMAS = 2.0


def density(
    counts: Float[np.ndarray, "group bin"], edges: Array
) -> tuple[Array, Array]:
    """Return a probability density and its standard error from the groups."""
    width = np.diff(edges)
    by_group = counts / counts.sum(axis=1, keepdims=True) / width
    mean = counts.sum(axis=0) / counts.sum() / width
    return mean, by_group.std(axis=0, ddof=1) / np.sqrt(len(counts))


def profile(
    counts: Float[np.ndarray, "group bin"], temperature_K: float
) -> tuple[Array, Array]:
    """Return F in eV and its standard error kT σ_p/p, from the groups."""
    F = free_energy(counts.sum(axis=0), temperature_K)
    p = counts / counts.sum(axis=1, keepdims=True)
    error = p.std(axis=0, ddof=1) / np.sqrt(len(counts))
    floor = 1.0 / counts.sum()
    return F, units.kB * temperature_K * error / np.maximum(p.mean(axis=0), floor)


def around(middle: Array, error: Array) -> tuple[Array, Array]:
    """Return the lower and upper edge of the band, ± 2σ."""
    return middle - BAND_SIGMAS * error, middle + BAND_SIGMAS * error


def running(energies: Float[np.ndarray, "chain frame"]) -> tuple[Array, Array, Array]:
    """Return the mean over chains and its ± 2σ, smoothed over a fortieth of the run."""
    width = max(1, energies.shape[1] // 40)
    kernel = np.ones(width)
    weights = np.convolve(np.ones(energies.shape[1]), kernel, mode="same")
    smooth = np.array([np.convolve(e, kernel, mode="same") / weights for e in energies])
    error = smooth.std(axis=0, ddof=1) / np.sqrt(len(smooth))
    mean = smooth.mean(axis=0)
    return mean, *around(mean, error)


def centers(edges: Array) -> Array:
    """Return the middles of bins."""
    return 0.5 * (edges[:-1] + edges[1:])


RATIO = "×: worst metric / noise floor"
REFERENCE, SAMPLE = "reference, ± 2σ", "sample"
MARKS = {"W1": ("o", "Wasserstein"), "JS": ("s", "Jensen–Shannon"), "F": ("D", "F(φ)")}


def draw_energies(check: SamplingCheck) -> Figure:
    """Return the distributions of potential energies, in eV above the lowest."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    found = {one.name: one for one in check.analysis.comparisons}
    main = found.get(ENERGY) or found.get(ENERGY_OF_MODEL)
    if main is None:
        return figure
    values = check.reference.energies
    known = values if values is not None else _model_energies(check)
    zero = float(known.min())
    middles = centers(main.edges) - zero
    _band(axes, middles, *density(main.reference, main.edges), label=REFERENCE)
    if ENERGY in found and check.on_reference is not None:
        counts, _ = np.histogram(check.on_reference.energies, bins=main.edges)
        width = np.diff(main.edges)
        axes.plot(
            middles,
            counts / counts.sum() / width,
            color=ORANGE,
            linewidth=1.2,
            linestyle=(0, (3, 2)),
            label="model on the reference",
        )
    label = "model on its chains" if check.chains is not None else "second half"
    sample, error = density(main.sample, main.edges)
    axes.plot(middles, sample, color=BLUE, linewidth=1.6, label=label)
    axes.fill_between(
        middles, *around(sample, error), color=BLUE, alpha=0.15, linewidth=0
    )
    for limit in energy_window(known):
        axes.axvline(limit - zero, color=RED, linewidth=0.9, linestyle=(0, (4, 3)))
    axes.set(
        xlabel="potential energy / eV, above the lowest of the reference",
        ylabel="probability per eV",
        ylim=(0.0, None),
    )
    axes.set_title(
        "Beyond the dashed lines frames are spurious", fontsize=9, color=MUTED
    )
    axes.legend()
    return figure


def draw_distances(check: SamplingCheck) -> Figure:
    """Return h(r) of all pairs and of every pair of elements."""
    shown = [c for c in check.analysis.comparisons if c.kind == "distance"]
    figure, panels = _grid(len(shown), width=3.6, height=2.2)
    for axes, one in zip(panels, shown, strict=True):
        middles = centers(one.edges)
        _band(axes, middles, *density(one.reference, one.edges), label=REFERENCE)
        sample, _ = density(one.sample, one.edges)
        axes.plot(middles, sample, color=BLUE, linewidth=1.3, label=SAMPLE)
        axes.set_title(f"{one.name}{_worst(one)}", fontsize=9.5)
        axes.set(ylim=(0.0, None))
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    figure.supxlabel(f"distance / Å\n{RATIO}", fontsize=10)
    figure.supylabel("h(r) / Å⁻¹", fontsize=10)
    panels[0].legend(fontsize=8)
    return figure


def draw_torsions(check: SamplingCheck) -> Figure | None:
    """Return the free energies F(φ) of all torsions, or None if there are none."""
    shown = [c for c in check.analysis.comparisons if c.kind == "torsion"]
    if not shown:
        return None
    temperature_K = check.reference.known_temperature
    kT = 1e3 * units.kB * temperature_K
    figure, panels = _grid(len(shown), width=3.9, height=2.6)
    for axes, one in zip(panels, shown, strict=True):
        middles = centers(one.edges)
        for counts, color, label, alpha in (
            (one.reference, MUTED, REFERENCE, 0.3),
            (one.sample, BLUE, "sample, ± 2σ", 0.15),
        ):
            F, error = profile(counts, temperature_K)
            axes.plot(middles, 1e3 * F, color=color, linewidth=1.5, label=label)
            axes.fill_between(
                middles,
                *around(1e3 * F, 1e3 * error),
                color=color,
                alpha=alpha,
                linewidth=0,
            )
        axes.axhline(DEPTH_KT * kT, color=RED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_title(f"{one.name}{_worst(one)}", fontsize=9.5)
        axes.set(
            xlim=(-180, 180),
            xticks=np.arange(-180, 181, 60),
            ylim=(-0.3 * kT, (DEPTH_KT + 1.5) * kT),
        )
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    figure.supxlabel(
        f"torsion φ / °\ndashed: 4 kT, up to which F counts\n{RATIO}", fontsize=10
    )
    figure.supylabel("F = −kT ln p / meV", fontsize=10)
    panels[0].legend(fontsize=8)
    return figure


def draw_ratios(check: SamplingCheck) -> Figure:
    """Return every metric in units of its noise floor, beside the limit of two."""
    shown = check.analysis.comparisons
    figure = Figure(figsize=(7.2, 1.1 + 0.27 * len(shown)), layout="constrained")
    axes = figure.subplots()
    limit = max([4.0, *(_finite(m) for c in shown for m in c.metrics)]) * 1.25
    axes.axvspan(0.02, MAX_RATIO, color=BLUE, alpha=0.06, linewidth=0)
    axes.axvline(MAX_RATIO, color=RED, linewidth=1.0, linestyle=(0, (4, 3)))
    for quantity, (mark, label) in MARKS.items():
        points = [
            (max(_finite(m), 0.05), row, m.ratio <= MAX_RATIO)
            for row, one in enumerate(shown)
            for m in one.metrics
            if m.quantity == quantity
        ]
        if points:
            x, y, good = zip(*points, strict=True)
            colors = [BLUE if one else RED for one in good]
            axes.scatter(x, y, marker=mark, s=26, c=colors, linewidth=0, zorder=3)
            axes.plot([], [], mark, color=INK, markersize=5, label=label)
    axes.set(
        xscale="log",
        xlim=(0.05, limit),
        xlabel="distance from the reference, in noise floors of the reference",
        ylim=(len(shown) - 0.4, -0.6),
    )
    axes.set_xticks([t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if t < limit])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_yticks(range(len(shown)), [one.name for one in shown])
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8.5)
    return figure


def draw_chains(chains: SampledChains, *, zero: float) -> Figure:
    """Return how chains fared: who survived, and energies over time by their starts."""
    figure = Figure(figsize=(9.2, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.0, 1.7))
    times, alive = chains.survival_curve()
    left.step(times, alive, where="post", color=BLUE, linewidth=1.8)
    left.set(
        xlabel="time / ps",
        ylabel="chains that never blew up",
        ylim=(0.0, 1.05),
        xlim=(0.0, times[-1]),
    )
    settings = chains.settings
    step_ps = settings.record_every * settings.timestep_fs / 1000.0
    when = step_ps * np.arange(1, chains.energies.shape[1] + 1)
    n_typical = len(chains.energies) - len(chains.energies) // 2
    groups = (
        ("started in the reference", chains.energies[:n_typical], BLUE),
        ("started elsewhere", chains.energies[n_typical:], ORANGE),
    )
    for label, energies, color in groups:
        mean, low, high = running(energies - zero)
        right.plot(when, mean, color=color, linewidth=1.5, label=label)
        right.fill_between(when, low, high, color=color, alpha=0.15, linewidth=0)
    discarded = settings.n_discarded * settings.timestep_fs / 1000.0
    right.axvspan(0.0, discarded, color=MUTED, alpha=0.12, linewidth=0)
    right.set(xlabel="time / ps; shaded: discarded", xlim=(0.0, when[-1]))
    right.set(ylabel="mean energy of the chains / eV")
    right.legend(fontsize=8.5)
    for axes in (left, right):
        axes.grid(color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
    return figure


def _model_energies(check: SamplingCheck) -> Array:
    assert check.on_reference is not None, "energies come from one of both"
    return check.on_reference.energies


def _grid(count: int, *, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(0.4 + width * columns, 0.4 + height * rows), layout="constrained"
    )
    panels: list[Axes] = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in panels[count:]:
        unused.set_visible(False)
    return figure, panels[:count]


def _band(axes: Axes, x: Array, y: Array, error: Array, *, label: str) -> None:
    axes.fill_between(x, *around(y, error), color=MUTED, alpha=0.35, linewidth=0)
    axes.plot(x, y, color=MUTED, linewidth=1.2, label=label)


def _worst(one: Comparison) -> str:
    """Return the largest distance in noise floors, for a title."""
    return f" · {max(_finite(metric) for metric in one.metrics):.1f}×"


def _finite(metric: Metric) -> float:
    return float(min(metric.ratio, 999.0)) if metric.ratio == metric.ratio else 999.0
