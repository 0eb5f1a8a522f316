"""Reads CatBench's JSON: adsorption reactions with structures and DFT energies.

    {name: {"raw": {"star": S, "OHstar": S, "H2gas": S, ...}, "ref_ads_eng": eV,
            "adsorbate_indices": [...]}}

with S = {"atoms_json" | "ref", "energy_ref", "stoi"}: structures in the words of ASE's
JSON, or a name in "_structures" (from 1.1.1 on). ΔE = Σ stoi · E.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from crack_md.errors import DataError
from crack_md.input_files import check_regular

CLEAN, GAS, SHARED = "star", "gas", "_structures"


@dataclass(frozen=True, eq=False)
class Reaction:
    """A clean slab and gas molecules become a slab with an adsorbate."""

    name: str
    adsorbate: str
    clean: Atoms
    covered: Atoms
    adsorbed: tuple[int, ...]
    """Indices of the adsorbate in ``covered``."""
    gases: Mapping[str, Atoms]
    stoichiometry: Mapping[str, float]
    """Of the gases, and of ``clean`` and ``covered``."""
    dft_eV: float


def read_reactions(path: Path) -> tuple[tuple[Reaction, ...], dict[str, str]]:
    """Return the reactions of a file, and by name what is wrong with the others.

    Raises:
        DataError: the file is missing, no JSON, or holds no adsorption reactions.
    """
    if not path.exists():
        raise DataError(f"no such file: '{path}'; expected CatBench's JSON")
    check_regular(path)
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"cannot read '{path}': {error}; expected JSON") from error
    reactions = told if isinstance(told, dict) else {}
    shared = reactions.pop(SHARED, {})
    found, failed = [], {}
    for name, entry in reactions.items():
        try:
            found.append(_reaction(name, entry, shared))
        except Exception as error:  # one damaged reaction must not end the others
            text = " ".join(str(error).split())[:200]
            failed[name] = f"cannot be read: {type(error).__name__}: {text}"
    if not found:
        first = "".join(f"; {name}: {why}" for name, why in list(failed.items())[:1])
        raise DataError(
            f"'{path}' holds no adsorption reactions as CatBench writes them; expected "
            "{name: {raw: {star, ...star, ...gas}, ref_ads_eng, adsorbate_indices}}"
            f"{first}"
        )
    return tuple(found), failed


def _reaction(
    name: str, entry: Mapping[str, Any], shared: Mapping[str, str]
) -> Reaction:
    raw = entry["raw"]
    covered = [key for key in raw if key.endswith(CLEAN) and key != CLEAN]
    if len(covered) != 1:
        raise ValueError(f"{len(covered)} structures with an adsorbate; expected one")
    gases = [key for key in raw if GAS in key]
    if other := set(raw) - {CLEAN, *covered, *gases}:
        raise ValueError(f"{', '.join(sorted(other))}: neither ...star nor ...gas")
    reaction = Reaction(
        name,
        covered[0].removesuffix(CLEAN),
        _structure(raw[CLEAN], shared),
        _structure(raw[covered[0]], shared),
        tuple(int(index) for index in entry["adsorbate_indices"]),
        {key.replace(GAS, ""): _structure(raw[key], shared) for key in gases},
        {
            "clean": float(raw[CLEAN]["stoi"]),
            "covered": float(raw[covered[0]]["stoi"]),
            **{key.replace(GAS, ""): float(raw[key]["stoi"]) for key in gases},
        },
        float(entry["ref_ads_eng"]),
    )
    _check(reaction)
    return reaction


def _check(reaction: Reaction) -> None:
    """Refuse what would score as a number and be none."""
    if not np.isfinite([reaction.dft_eV, *reaction.stoichiometry.values()]).all():
        raise ValueError("ref_ads_eng and stoi must be finite numbers")
    places, n_atoms = reaction.adsorbed, len(reaction.covered)
    if not places or min(places) < 0 or max(places) >= n_atoms:
        raise ValueError(
            f"adsorbate_indices {list(places)} name no atoms of {n_atoms}; expected "
            f"some from 0 to {n_atoms - 1}"
        )


def _structure(stored: Mapping[str, Any], shared: Mapping[str, str]) -> Atoms:
    text = stored["atoms_json"] if "atoms_json" in stored else shared[stored["ref"]]
    atoms = ase.io.read(io.StringIO(text), format="json")
    assert isinstance(atoms, Atoms)
    atoms.calc = None
    return atoms


def write_reactions(reactions: Mapping[str, Reaction], path: Path) -> None:
    """Write reactions as CatBench does; energies of their parts are not known."""
    told = {}
    for name, reaction in reactions.items():
        parts = {
            CLEAN: (reaction.clean, "clean"),
            f"{reaction.adsorbate}{CLEAN}": (reaction.covered, "covered"),
            **{f"{gas}{GAS}": (a, gas) for gas, a in reaction.gases.items()},
        }
        told[name] = {
            "raw": {
                key: {
                    "atoms_json": _text(atoms),
                    "energy_ref": None,
                    "stoi": reaction.stoichiometry[part],
                }
                for key, (atoms, part) in parts.items()
            },
            "ref_ads_eng": reaction.dft_eV,
            "adsorbate_indices": list(reaction.adsorbed),
        }
    path.write_text(json.dumps(told), encoding="utf-8")


def _text(atoms: Atoms) -> str:
    buffer = io.StringIO()
    ase.io.write(buffer, atoms, format="json")
    return buffer.getvalue()
