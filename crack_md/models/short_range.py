"""ZBL repulsion between atoms that are nearer than bonds, for trained students.

The screened repulsion of nuclei of Ziegler, Biersack and Littmark (The Stopping and
Range of Ions in Solids, Pergamon 1985) with their universal screening function φ:

    V(r) = e²/(4πε₀) · Z₁Z₂/r · φ(r/a) · u(r/b)
    a    = 0.8854 a₀ / (Z₁^0.23 + Z₂^0.23)
    φ(x) = 0.18175 exp(-3.19980 x) + 0.50986 exp(-0.94229 x)
         + 0.28022 exp(-0.40290 x) + 0.02817 exp(-0.20162 x)

u falls from 1 at contact to 0 at b, 0.8 of the sum of the covalent radii (Cordero 2008,
as in ASE), with two vanishing derivatives: O above platinum feels nothing from 1.62 Å
on, O beside H from 0.78 Å, two platinum atoms from 2.18 Å.

A network beside it would be free to invent a well where it has no data. So it does not
see how near such atoms are: below b it is given a length that levels off, and stays 0.7
of the sum of the radii from 0.6 on. There its energy no longer depends on the distance,
and the monotonic repulsion alone is left.
"""

from typing import Literal

import torch
from ase.data import covalent_radii
from ase.units import Bohr, Hartree
from jaxtyping import Float, Int
from torch import Tensor

from crack_md.models.layers import polynomial_envelope
from crack_md.models.precision import ExactConstants

ShortRangeKind = Literal["none", "zbl"]

COULOMB = Hartree * Bohr
"""e²/(4πε₀) in eV Å."""
SCREENING_LENGTH = 0.8854 * Bohr
"""Å; over the sum of Z^0.23."""
WEIGHTS = (0.18175, 0.50986, 0.28022, 0.02817)
DECAYS = (3.19980, 0.94229, 0.40290, 0.20162)
OUTER = 0.8
"""Times the sum of covalent radii: where the repulsion begins."""
INNER = 0.6
"""Times the sum of covalent radii: below it the network sees one length only."""
SWITCH_POWER = 6
"""p of the switch u, the polynomial of `polynomial_envelope`."""


class ShortRange(ExactConstants):
    """The repulsion of pairs, and the lengths that a network sees of them.

    Args:
        num_elements: atomic numbers below this are representable.
        cutoff: of the network, in Å; the repulsion ends there at the latest.
    """

    radii: Tensor
    powers: Tensor
    weights: Tensor
    decays: Tensor

    def __init__(self, num_elements: int, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        numbers = torch.arange(num_elements, dtype=torch.float64, device="cpu")
        radii = torch.from_numpy(covalent_radii[:num_elements].copy())
        self.keep("radii", radii)
        self.keep("powers", numbers**0.23)
        self.keep("weights", torch.tensor(WEIGHTS, dtype=torch.float64, device="cpu"))
        self.keep("decays", torch.tensor(DECAYS, dtype=torch.float64, device="cpu"))

    def reach(
        self, first: Int[Tensor, " pair"], second: Int[Tensor, " pair"]
    ) -> Float[Tensor, " pair"]:
        """Return b in Å: the length from which on pairs feel nothing."""
        radii = self.radii.index_select(0, first) + self.radii.index_select(0, second)
        return (OUTER * radii).clamp(max=self.cutoff)

    def energies(
        self,
        lengths: Float[Tensor, "*batch pair"],
        first: Int[Tensor, " pair"],
        second: Int[Tensor, " pair"],
    ) -> Float[Tensor, "*batch pair"]:
        """Return V in eV of pairs at distances in Å with these atomic numbers."""
        powers = self.powers.index_select(0, first) + self.powers.index_select(
            0, second
        )
        x = lengths * powers / SCREENING_LENGTH
        screening = torch.exp(-x.unsqueeze(-1) * self.decays) @ self.weights
        charges = (first * second).to(lengths.dtype)
        switch = switch_off(lengths / self.reach(first, second))
        return COULOMB * charges / lengths * screening * switch

    def seen(
        self,
        lengths: Float[Tensor, "*batch pair"],
        first: Int[Tensor, " pair"],
        second: Int[Tensor, " pair"],
    ) -> Float[Tensor, "*batch pair"]:
        """Return the lengths that a network may see: never short ones.

        From b on they are right. Below, their slope falls as 10t³ − 15t⁴ + 6t⁵ from 1
        to 0, where t is 1 at b and 0 at 0.75 b.
        """
        outer = self.reach(first, second)
        width = (1 - INNER / OUTER) * outer
        t = ((lengths - outer) / width + 1).clamp(0, 1)
        risen = t**4 * (2.5 - 3 * t + t**2)  # the integral of the slope: 1/2 at t = 1
        near = outer - width / 2 + width * risen
        return torch.where(lengths < outer, near, lengths)


def switch_off(x: Float[Tensor, "*batch pair"]) -> Float[Tensor, "*batch pair"]:
    """Return u: 1 at 0, then falling, 0 with two vanishing derivatives from 1 on."""
    return polynomial_envelope(x, 1.0, SWITCH_POWER)
