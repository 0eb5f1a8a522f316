"""Published O* adsorption energies on close-packed metals, in eV, lowest site each.

And how platinum with nickel or cobalt below compares with platinum.
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
            "Ni": -4.9890,
            "Co(0001)": -5.3837,
            "Ru(0001)": -5.4492,
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


@dataclass(frozen=True)
class Order:
    """That O* binds more weakly on one surface than on another."""

    weaker: str
    stronger: str
    source: str


_SUBSURFACE = (
    "Kitchin, Nørskov, Barteau and Chen (2004), doi:10.1063/1.1700365: a 3d metal "
    "under Pt(111) lowers its d band, Co more than Ni, and weakens the adsorption of O"
)
_SKIN = (
    "Stamenkovic et al. (2006), doi:10.1002/anie.200504386: Pt skins on Pt3Ni and "
    "Pt3Co bind O more weakly than Pt, which is why they reduce it faster"
)
PLATINUM_ORDER = (
    Order("Pt3Ni(111) Pt skin", "Pt(111)", _SKIN),
    Order("Pt3Co(111) Pt skin", "Pt(111)", _SKIN),
    Order("Pt/Ni/Pt(111)", "Pt(111)", _SUBSURFACE),
    Order("Pt/Co/Pt(111)", "Pt(111)", _SUBSURFACE),
    Order("Pt/Co/Pt(111)", "Pt/Ni/Pt(111)", _SUBSURFACE),
)
"""Published statements about order; numbers depend on strain, cell and functional."""
