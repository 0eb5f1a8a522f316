"""Results folders for tests: made up, or of a small screening with EMT."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ase.io
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from crack_md.structures import read_entries
from crack_md.workflows.model_info import ModelInfo
from crack_md.workflows.orr import limiting_potential
from crack_md.workflows.relax.store import open_store
from crack_md.workflows.screening.plan import ScreenSettings
from crack_md.workflows.screening.screen import screen_slabs
from crack_md.workflows.screening.tables import write_tables

ENERGIES = {"Pt3Ni(111)": 1.70, "Pt(111)": 1.62, "Pd(111)": 1.55, "Au(111)": 2.61}
"""ΔE of O* in eV on fcc."""
FAILED = {
    "slab": "bulk",
    "formula": "Pt4",
    "status": "no_surface",
    "error": "no vacuum",
}


def write_screening(
    folder: Path,
    energies: Mapping[str, float] = ENERGIES,
    *,
    spread: Mapping[str, float] | None = None,
    others: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    summary: Mapping[str, Any] | None = None,
) -> Path:
    """Write a folder as ``crack-md screen`` would, hcp 0.1 eV above fcc everywhere.

    Args:
        folder: where to write.
        energies: ΔE of O* on fcc by slab; ΔG is 0.04 eV above.
        spread: of a committee, by slab.
        others: ΔE of further adsorbates by slab; ΔG is 0.35 eV above.
        summary: entries of summary.json to replace.
    """
    potential = {name: limiting_potential(dE + 0.04) for name, dE in energies.items()}
    order = sorted(energies, key=lambda name: -potential[name])
    slabs = [
        {
            "rank": rank,
            "slab": name,
            "formula": name.split("(")[0],
            "status": "ok",
            "best_site": "bridge",
            "final_site": "fcc",
            "dE_O_H2O_H2_eV": energies[name],
            "dG_O_eV": energies[name] + 0.04,
            "U_L_V": potential[name],
            "overpotential_V": 1.23 - potential[name],
            "n_sites": 3,
            "n_valid_sites": 2,
            **({} if spread is None else {"dE_O_std_eV": spread[name]}),
            **_other_columns(name, others),
        }
        for rank, name in enumerate(order, start=1)
    ]
    sites = [
        {
            "slab": name,
            "formula": name.split("(")[0],
            "site": start,
            "status": status,
            "final_site": final,
            "dE_O_H2O_H2_eV": None if status == "desorbed" else energies[name] + extra,
        }
        for name in order
        for start, final, status, extra in (
            ("bridge", "fcc", "converged", 0.0),
            ("hcp", "hcp", "converged", 0.1),
            ("ontop", "", "desorbed", 0.0),
        )
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "results.csv", [*slabs, FAILED])
    write_csv(folder / "sites.csv", sites)
    settings = {
        "adsorbate": "O",
        **({"adsorbates": ["O", *others]} if others else {}),
        "fmax_eV_per_A": 0.03,
        "steps": 300,
        "maxstep_A": 0.1,
        "corrections": "norskov-2004",
        "scaling": "man-2011",
    }
    told = {
        "settings": settings,
        "model": {"name": "test", "sha256": "abc", "energy_reference": "total"},
        "versions": {"python": "3"},
        **(summary or {}),
    }
    (folder / "summary.json").write_text(json.dumps(told))
    return folder


def _other_columns(
    name: str, others: Mapping[str, Mapping[str, float]]
) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for adsorbate, energies in others.items():
        if name in energies:
            columns |= {
                f"{adsorbate}_best_site": "bridge",
                f"{adsorbate}_final_site": "fcc",
                f"dE_{adsorbate}_H2O_H2_eV": energies[name],
                f"dG_{adsorbate}_eV": energies[name] + 0.35,
            }
    return columns


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as a table with the columns of all of them."""
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["slab"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


GASES = {"H2O": 2.2, "H2": 2.5}
EMT_MODEL = ModelInfo("emt", "emt", "total", GASES)
METALS = {"Pt": "Pt", "Pd": "Pd", "Cu": "Cu", "7": "Pt"}
"""Slab to metal; the last is the first one over again, under an awkward name."""


def run_screening(folder: Path, *, size: int = 1) -> Path:
    """Screen four slabs and a bulk with EMT, as ``crack-md screen`` does."""
    frames = [bulk("Au", cubic=True)]
    frames[0].info = {"name": "bulk"}
    for name, metal in METALS.items():
        atoms = fcc111(metal, (size, size, 3), vacuum=8.0, periodic=True)
        atoms.info = {"name": name}
        frames.append(atoms)
    folder.mkdir(parents=True, exist_ok=True)
    ase.io.write(folder / "slabs.extxyz", frames)
    settings = ScreenSettings(fmax=0.05)
    with open_store(folder, settings.conditions(EMT_MODEL)) as store:
        entries = read_entries(folder / "slabs.extxyz")
        result = screen_slabs(
            entries, EMT(), model=EMT_MODEL, store=store, settings=settings
        )
        write_tables(result, folder)
    return folder
