"""Published O* adsorption energies on close-packed metals, in eV, lowest site each.

Only the metals that `examples/surfaces.db` holds as (111) slabs are listed.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Literature:
    """One published column."""

    source: str
    absolute: bool
    """Whether energies are against H2O and H2, as those of a screening; others are
    compared after one shift only."""
    energies_eV: dict[str, float]


LITERATURE = {
    "Falsig": Literature(
        "Falsig et al. (2012), CatApp, as tabulated in CatMAP's tutorial 'Creating a "
        "microkinetic model'; against H2O and H2; functional not stated there",
        absolute=True,
        energies_eV={
            "Rh": 0.55,
            "Cu": 1.07,
            "Pd": 1.55,
            "Pt": 1.62,
            "Ag": 2.05,
            "Au": 2.61,
        },
    ),
    "Blondal-Kreitz": Literature(
        "K. Blondal and B. Kreitz, RMG-database, input/surface/libraries/metal.py; "
        "against an O atom",
        absolute=False,
        energies_eV={
            "Pt": -3.8115,
            "Rh": -4.7142,
            "Ir": -4.3524,
            "Au": -2.7182,
            "Pd": -4.1358,
            "Cu": -4.2076,
            "Ag": -3.1116,
        },
    ),
    "Xu-Kitchin": Literature(
        "Z. Xu and J. R. Kitchin (2014), doi:10.1021/jp508805h; PBE, fcc sites, a "
        "quarter monolayer, against an O atom",
        absolute=False,
        energies_eV={
            "Pt": -4.264,
            "Pd": -4.373,
            "Rh": -5.031,
            "Ir": -4.757,
            "Cu": -4.701,
            "Ag": -3.461,
            "Au": -3.045,
        },
    ),
}
