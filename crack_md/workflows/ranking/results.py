"""Records of a ranking and their files; energies are eV, potentials V.

ranking.csv is for people and programs, ranking.json for the report: it carries the
SHA-256 of the table that was ranked, so that the report never shows probabilities of
older results. rescored.jsonl keeps what other models computed, one line as soon as it
is there, so that a stopped run goes on.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crack_md.errors import DataError
from crack_md.files import csv_bytes, file_sha256, write_atomically, write_json
from crack_md.workflows.ranking.calibration import Calibration, Kind, ReferenceValue
from crack_md.workflows.ranking.errors import DEFAULT_LEVEL, DRAWS, AssumedErrors

CSV_NAME, JSON_NAME = "ranking.csv", "ranking.json"


@dataclass(frozen=True)
class RankSettings:
    """What decides a ranking, besides energies."""

    top: int = 10
    level: float = DEFAULT_LEVEL
    """Probability of the intervals of energies and potentials."""
    seed: int = 0
    draws: int = DRAWS
    correction: Kind | None = None
    """None: an offset for fewer than four DFT values, a line from four on."""
    assumed: AssumedErrors = field(default_factory=AssumedErrors)


@dataclass(frozen=True)
class RankedEnergy:
    """An adsorbate on its best site: corrected energies with intervals."""

    adsorbate: str
    site: str
    source: str
    """``model``, ``DFT``, or the name of the model that re-scored it."""
    screened_dE_eV: float
    dE_eV: float
    dE_low_eV: float
    dE_high_eV: float
    dG_eV: float
    dG_low_eV: float
    dG_high_eV: float


@dataclass(frozen=True)
class RankedSlab:
    """One slab with its energies, its limiting potential and its chances."""

    rank: int
    screen_rank: int
    slab: str
    formula: str
    energies: tuple[RankedEnergy, ...]
    """Of the intermediates of oxygen reduction that were screened, at least one."""
    U_L_V: float
    U_L_low_V: float
    U_L_high_V: float
    p_best: float
    p_top: float
    rank_low: int
    rank_high: int


@dataclass(frozen=True)
class Ranking:
    """All ranked slabs, best first, and where the errors come from."""

    slabs: tuple[RankedSlab, ...]
    settings: RankSettings
    adsorbates: tuple[str, ...]
    """The intermediates that limiting potentials rest on."""
    rank_level: float
    shortlist: tuple[str, ...]
    """Slabs to look at to have all of the best ``top`` with that probability."""
    corrections: Mapping[str, Calibration] = field(default_factory=dict)
    """By adsorbate, from DFT values."""
    between_models: Mapping[str, Calibration] = field(default_factory=dict)
    """By adsorbate, from the model of the screening to the one that re-scored."""
    reference_values: tuple[ReferenceValue, ...] = ()
    has_committee: bool = False


def write_ranking(ranking: Ranking, folder: Path, **provenance: Any) -> dict[str, Any]:
    """Write ranking.csv and ranking.json beside the results; return the latter.

    Raises:
        DataError: a file cannot be written.
    """
    record = {
        **_plain(asdict(ranking)),
        "results_sha256": file_sha256(folder / "results.csv"),
        **provenance,
    }
    write_atomically(folder / CSV_NAME, _table(ranking))
    write_json(folder / JSON_NAME, record)
    return record


def read_ranking(folder: Path) -> dict[str, Any] | None:
    """Return ranking.json; None where there is none for the results as they are now."""
    path = folder / JSON_NAME
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        current = record["results_sha256"] == file_sha256(folder / "results.csv")
    except (ValueError, KeyError, TypeError):
        return None
    return record if current else None


def table_row(row: RankedSlab, top: int, adsorbates: Sequence[str]) -> dict[str, Any]:
    """Return a row of ranking.csv, units in the column names.

    ``interval`` tells its columns from the band over scalings in results.csv.
    """
    by_name = {energy.adsorbate: energy for energy in row.energies}
    flat: dict[str, Any] = {
        "rank": row.rank,
        "screen_rank": row.screen_rank,
        "slab": row.slab,
        "formula": row.formula,
        "U_L_V": row.U_L_V,
        "U_L_interval_low_V": row.U_L_low_V,
        "U_L_interval_high_V": row.U_L_high_V,
        "P_best": row.p_best,
        f"P_top{top}": row.p_top,
        "rank_low": row.rank_low,
        "rank_high": row.rank_high,
    }
    for name in adsorbates:
        energy = asdict(by_name[name]) if name in by_name else {}
        flat |= {
            f"{name}_site": energy.get("site"),
            f"{name}_source": energy.get("source"),
            f"dE_{name}_screened_eV": energy.get("screened_dE_eV"),
        }
        for kind in ("dE", "dG"):
            flat |= {
                f"{kind}_{name}_eV": energy.get(f"{kind}_eV"),
                f"{kind}_{name}_interval_low_eV": energy.get(f"{kind}_low_eV"),
                f"{kind}_{name}_interval_high_eV": energy.get(f"{kind}_high_eV"),
            }
    return flat


def _table(ranking: Ranking) -> bytes:
    top, adsorbates = ranking.settings.top, ranking.adsorbates
    rows = [table_row(row, top, adsorbates) for row in ranking.slabs]
    return csv_bytes(rows, decimals=4)


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: rounded, and infinity as null."""
    if isinstance(value, dict):
        return {key: _plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(content) for content in value]
    if isinstance(value, float):
        # a tenth of a microelectronvolt; adding zero turns -0.0 into 0.0
        return round(value, 7) + 0.0 if math.isfinite(value) else None
    return value


FILE_NAME = "rescored.jsonl"
USABLE = ("single_point", "converged", "plateau")


@dataclass(frozen=True)
class Rescored:
    """What another model says of an adsorbate on one slab."""

    slab: str
    adsorbate: str
    site: str
    model: str
    sha256: str
    relaxed: bool
    screened_eV: float
    """ΔE of the screening."""
    dE_eV: float | None
    """ΔE by this model, against H2O and H2; None where there is none."""
    status: str
    """``single_point``, ``converged``, ``plateau`` (direct forces that no longer fall
    and are small), ``not_converged``, ``missing``, ``failed``, or an anomaly:
    ``desorbed``, ``dissociated``, ``intercalated``, ``surface_changed``."""
    moved_A: float | None = None
    """How far the adsorbate went from where the screening left it."""
    error: str = ""

    @property
    def is_usable(self) -> bool:
        """Return whether the energy may replace that of the screening."""
        return self.dE_eV is not None and self.status in USABLE


def read_rescored(folder: Path) -> tuple[Rescored, ...]:
    """Return everything that other models have said of the slabs of a folder."""
    path = folder / FILE_NAME
    if not path.is_file():
        return ()
    return tuple(_lines(path.read_text(encoding="utf-8").splitlines()))


def _lines(lines: Iterable[str]) -> Iterator[Rescored]:
    for line in lines:
        try:
            yield Rescored(**json.loads(line))
        except (ValueError, TypeError):  # the last line of a run that was killed
            continue


def append_rescored(folder: Path, result: Rescored) -> None:
    """Keep a result in the folder of its screening.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        with (folder / FILE_NAME).open("a", encoding="utf-8") as file:
            # a newline first parts it from half a line of a killed run
            file.write("\n" + json.dumps(asdict(result), ensure_ascii=False) + "\n")
    except OSError as error:
        raise DataError(
            f"cannot write '{folder / FILE_NAME}': {error.strerror or error}"
        ) from error
