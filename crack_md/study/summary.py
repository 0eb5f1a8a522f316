"""From the results of all runs to means, spreads and differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, NamedTuple

from scipy import stats

from crack_md.files import read_json
from crack_md.study.plan import Plan, StudentRun, is_done

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
        Column("adsorption_mae_eV", "adsorption.mae_eV", "ΔE relaxed / eV", 3, "low"),
        Column("n_without_energy", "adsorption.n_without_energy", "without ΔE", 1),
        Column("n_own_labels", "n_own_labels", "own labels", 0),
        Column("n_quarantined", "n_quarantined", "quarantined", 0),
        Column("efwt_percent", "labels.all.efwt_percent", "accurate / %", 1, "high"),
        Column("head_mae", "teacher.all.embedding_mae", "features MAE", 3, "low"),
        Column(
            "head_cosine", "teacher.all.embedding_cosine", "features cosine", 3, "high"
        ),
        Column("steps", "steps", "steps", 0),
        Column("step_ms", "step_ms", "ms/step", 0),
        Column("wall_s", "wall_s", "s", 0),
    )
}
COMPARED = (
    "energy_mae_meV_per_atom",
    "force_mae_meV_per_A",
    "unrelaxed_force_mae_meV_per_A",
    "embedding_unexplained",
    "adsorption_mae_eV",
)
"""What methods are compared with the reference in."""


def number(result: Result, place: str) -> float | None:
    """Return the number at a dotted place of a result, None where there is none."""
    value: Any = result
    for name in place.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


@dataclass(frozen=True)
class Spread:
    """A number over seeds."""

    values: dict[int, float]
    """By seed."""

    @property
    def mean(self) -> float:
        """Return the mean over seeds."""
        return fmean(self.values.values())

    @property
    def std(self) -> float | None:
        """Return the sample standard deviation, None for one seed."""
        return stdev(self.values.values()) if len(self.values) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers, for JSON."""
        return {"mean": self.mean, "std": self.std, "seeds": self.values}


CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """The mean of one method minus that of another."""

    mean: float
    half_width: float | None
    """Of the 95 % interval of the mean; None where a method has one seed alone."""
    paired: bool
    """Whether it is that of the seeds that both have."""

    @property
    def is_tie(self) -> bool:
        """Return whether there is an interval and it holds 0."""
        return self.half_width is not None and abs(self.mean) <= self.half_width

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers, for JSON."""
        return {
            "mean": self.mean,
            "half_width_95": self.half_width,
            "paired": self.paired,
        }


def compare_spreads(one: Spread, other: Spread) -> Difference:
    """Return one minus other, with its 95 % interval over seeds.

    Seed by seed with Student's t where two seeds or more are shared, for data and start
    of a seed are the same for all methods. Otherwise by Welch's t (Biometrika 34, 28,
    1947), whose variances may differ.
    """
    shared = sorted(one.values.keys() & other.values.keys())
    if len(shared) > 1:
        by_seed = [one.values[seed] - other.values[seed] for seed in shared]
        error = stdev(by_seed) / len(shared) ** 0.5
        half = error * float(stats.t.ppf((1 + CONFIDENCE) / 2, len(shared) - 1))
        return Difference(fmean(by_seed), half, paired=True)
    if one.std is None or other.std is None:
        if shared:
            of_seed = one.values[shared[0]] - other.values[shared[0]]
            return Difference(of_seed, None, paired=True)
        return Difference(one.mean - other.mean, None, paired=False)
    mean = one.mean - other.mean
    if one.std == other.std == 0:  # SciPy would divide by it
        return Difference(mean, 0.0, paired=False)
    test = stats.ttest_ind(
        list(one.values.values()), list(other.values.values()), equal_var=False
    )
    interval = test.confidence_interval(CONFIDENCE)
    return Difference(mean, float(interval.high - interval.low) / 2, paired=False)


@dataclass(frozen=True)
class Row:
    """One method at one budget."""

    method: str
    budget: str
    columns: dict[str, Spread]
    """By key; a number that no run has is absent."""
    n_done: int
    n_planned: int
    errors: dict[int, str]
    """By seed: why runs have no result."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers, for JSON."""
        return {
            "method": self.method,
            "budget": self.budget,
            "n_done": self.n_done,
            "n_planned": self.n_planned,
            "errors": self.errors,
            "columns": {key: spread.as_dict() for key, spread in self.columns.items()},
        }


@dataclass(frozen=True)
class StudySummary:
    """Everything that tables and figures show of a study."""

    title: str
    reference: str
    rows: tuple[Row, ...]
    """Budget by budget, methods in the order of the file."""
    budgets: tuple[str, ...]
    teacher: Result | None
    baselines: Result | None
    """Metrics of any run, for the errors that no model at all makes."""
    evaluated_on: str

    def of_budget(self, budget: str) -> tuple[Row, ...]:
        """Return the rows of one budget."""
        return tuple(row for row in self.rows if row.budget == budget)

    def minus_reference(self, row: Row, key: str) -> Difference | None:
        """Return row minus reference, None where one of them has no such number."""
        other = next(
            (r for r in self.of_budget(row.budget) if r.method == self.reference), None
        )
        if other is None or other is row:
            return None
        if key not in row.columns or key not in other.columns:
            return None
        return compare_spreads(row.columns[key], other.columns[key])

    def as_dict(self) -> dict[str, Any]:
        """Return plain containers, for JSON."""
        return {
            "title": self.title,
            "evaluated_on": self.evaluated_on,
            "reference": self.reference,
            "teacher": self.teacher,
            "baselines": self.baselines,
            "rows": [
                row.as_dict()
                | {
                    "minus_reference": {
                        key: difference.as_dict()
                        for key in COMPARED
                        if (difference := self.minus_reference(row, key)) is not None
                    }
                }
                for row in self.rows
            ],
        }


def summarize_study(plan: Plan) -> StudySummary:
    """Return what the run folders of a study hold."""
    results = {
        run.name: read_json(run.result_file, may_miss=True) for run in plan.students
    }
    done = [run for run in plan.students if is_done(run)]
    reference = plan.study.reference or plan.methods[0]
    first = results[done[0].name] if done else None
    teacher = plan.teacher
    return StudySummary(
        title=plan.study.title or plan.study.folder.name,
        reference=reference,
        rows=tuple(
            _row(method, budget, plan, done)
            for budget in plan.budgets
            for method in plan.methods
            # a method may have a budget of its own
            if any(
                (run.method, run.budget) == (method, budget) for run in plan.students
            )
        ),
        budgets=plan.budgets,
        teacher=read_json(teacher.result_file, may_miss=True)
        if teacher and is_done(teacher)
        else None,
        baselines=None if first is None else first["labels"],
        evaluated_on=_frames_line(plan, first),
    )


def _row(method: str, budget: str, plan: Plan, done: Sequence[StudentRun]) -> Row:
    own = [run for run in plan.students if (run.method, run.budget) == (method, budget)]
    results = {
        run.seed: result
        for run in own
        if run in done
        and (result := read_json(run.result_file, may_miss=True)) is not None
    }
    columns = {}
    for key, column in COLUMNS.items():
        values = {
            seed: value
            for seed, result in results.items()
            if (value := number(result, column.place)) is not None
        }
        if values:
            columns[key] = Spread(values)
    errors = {
        run.seed: str(failure["error"])
        for run in own
        if run.seed not in results
        and (failure := read_json(run.error_file, may_miss=True)) is not None
    }
    return Row(method, budget, columns, len(results), len(own), errors)


def _frames_line(plan: Plan, result: Result | None) -> str:
    wanted = plan.study.evaluate
    count = (
        "" if result is None else f"{result['labels']['all']['n_frames']} frames of "
    )
    return f"{count}{wanted.path.name}, split {wanted.split}"
