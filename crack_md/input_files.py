"""Files as they come from elsewhere, checked before a library is trusted with them."""

from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from ase.db import connect

from crack_md.errors import ConfigError, DataError, MissingDependencyError
from crack_md.lmdb_pages import check_lmdb


def check_file(path: Path, *, whole: bool = True) -> None:
    """Refuse what a reader would wait for, hang on, or die of.

    Args:
        path: of any kind.
        whole: also refuse extended XYZ whose last frame is cut short; its other frames
            can be read.

    Raises:
        DataError: no such file, a pipe or device, an empty file, an LMDB file that is
            damaged, or extended XYZ with far fewer lines than it says.
    """
    check_regular(path)
    if path.stat().st_size == 0:
        raise DataError(f"{path} is an empty file")
    if path.suffix == ".aselmdb":
        check_lmdb(path)
    elif path.suffix in (".xyz", ".extxyz"):
        _check_xyz(path, whole=whole)


def check_regular(path: Path) -> None:
    """Refuse what is no file, before it is opened: a pipe waits for who writes to it.

    Raises:
        DataError: nothing there, a pipe or a device.
    """
    if not path.exists():
        raise DataError(f"no such file or folder: {path}")
    if not path.is_file():
        raise DataError(
            f"{path} is a pipe or a device; expected a file: save its content first"
        )


def open_database(path: Path, *, readonly: bool = True) -> Any:
    """Return an ASE database, `.aselmdb` included, whole as far as its pages tell.

    Raises:
        DataError: it is damaged.
        MissingDependencyError: the backend of LMDB files is not installed.
    """
    if path.suffix != ".aselmdb":
        return connect(path, use_lock_file=False)
    try:
        from ase_db_backends.aselmdb import LMDBDatabase
    except ImportError as error:
        raise MissingDependencyError.of(
            "ase-db-backends", extra="train", purpose="reading and writing .aselmdb"
        ) from error
    if path.exists():
        check_lmdb(path)
    return LMDBDatabase(path, use_lock_file=False, readonly=readonly)


def parse_yaml(text: str, *, where: str) -> Any:
    """Return the content of YAML.

    Raises:
        ConfigError: it is none, or nested deeper than any configuration.
    """
    try:
        return yaml.safe_load(text)
    except RecursionError:
        raise ConfigError(f"{where}: nested too deeply to be a configuration") from None
    except (yaml.YAMLError, ValueError) as error:  # a date of month 13, say
        reason = " ".join(str(error).split())
        raise ConfigError(f"{where}: not valid YAML: {reason}") from None


def read_yaml(path: Path, *, what: str) -> Any:
    """Return the content of a YAML file.

    Raises:
        ConfigError: it is missing, not YAML, or cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if text is None:
        raise ConfigError(f"{path}: no such file; expected {what}")
    return parse_yaml(text, where=str(path))


def _check_xyz(path: Path, *, whole: bool) -> None:
    """Compare the counts of atoms with the lines there are, which ASE does not."""
    with path.open("rb") as file:
        frame = 0
        while line := file.readline().strip():
            frame += 1
            if not line.isdigit():
                return  # ASE says what it expects
            count = int(line[:18]) + 1
            found = sum(1 for _ in islice(file, min(count, path.stat().st_size)))
            short = found < count and not (found == count - 1 == 0)
            if short and (whole or frame == 1 or count > path.stat().st_size):
                raise DataError(
                    f"{path}: frame {frame} says it has {line[:18].decode()} atoms, "
                    f"and {max(found - 1, 0)} lines follow; it is cut short or damaged"
                )
