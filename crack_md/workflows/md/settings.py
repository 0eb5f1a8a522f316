"""Settings of a molecular dynamics run."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from crack_md.errors import ConfigError

Ensemble = Literal["nve", "langevin", "bussi", "npt"]
Format = Literal["extxyz", "traj"]
ENSEMBLES: tuple[Ensemble, ...] = get_args(Ensemble)


@dataclass(frozen=True)
class MDSettings:
    """Settings of one run; times in fs, temperatures in K.

    Raises:
        ConfigError: a value that no run can have.
    """

    ensemble: Ensemble = "langevin"
    temperature_K: float = 300.0
    timestep_fs: float = 1.0
    steps: int = 1000
    """Steps of the whole run, those of an earlier part included."""
    friction_per_ps: float = 1.0
    """Rate of the thermostat: Langevin's friction, 1/τ of Bussi's and of NPT's."""
    pressure_GPa: float = 0.0
    pressure_time_fs: float = 1000.0
    seed: int = 0
    initial_temperature_K: float | None = None
    """None: ``temperature_K``. Velocities that the structure brings are kept."""
    log_every: int = 10
    frames_every: int = 100
    restart_every: int = 100
    format: Format = "extxyz"
    stop_at_broken_bonds: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.ensemble not in ENSEMBLES:
            _refuse("ensemble", self.ensemble, f"one of {', '.join(ENSEMBLES)}")
        if self.format not in get_args(Format):
            _refuse("format", self.format, f"one of {', '.join(get_args(Format))}")
        for name in ("timestep_fs", "temperature_K", "pressure_time_fs"):
            if not 0 < getattr(self, name) < float("inf"):
                _refuse(name, getattr(self, name), "a positive number")
        for name in ("steps", "log_every", "frames_every", "restart_every"):
            if getattr(self, name) < 1:
                _refuse(name, getattr(self, name), "1 or more")
        if not 0 <= self.friction_per_ps < float("inf"):
            _refuse("friction_per_ps", self.friction_per_ps, "0 or more")
        if self.ensemble in ("bussi", "npt") and self.friction_per_ps == 0:
            _refuse("friction_per_ps", 0, "more than 0 with a thermostat of this kind")

    @property
    def start_temperature(self) -> float:
        """Return the temperature in K that velocities are drawn for."""
        given = self.initial_temperature_K
        return self.temperature_K if given is None else given

    def conditions(self) -> dict[str, Any]:
        """Return what two calls must share for one to continue the other."""
        return {name: value for name, value in asdict(self).items() if name != "steps"}


def _refuse(name: str, value: object, expected: str) -> None:
    raise ConfigError(f"{name} is {value!r}; expected {expected}")
