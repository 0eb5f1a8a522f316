"""One relaxation as it is stored. Energies are eV, lengths Å."""

from dataclasses import dataclass

ADSORBED = ("converged", "plateau", "not_converged")
"""Site statuses whose energies mean an adsorbed species."""
PLATEAU_FMAX = 0.1
"""eV/Å, largest force of a plateau whose energy still counts."""


@dataclass(frozen=True)
class RelaxationRecord:
    """One relaxation as it is stored; everything else is worked out from these."""

    key: str
    slab: str
    site: str
    """Label of the starting site; empty for a clean slab."""
    status: str
    """``converged``, ``plateau``, ``not_converged``, ``failed``, or the worst anomaly:
    ``desorbed``, ``dissociated``, ``intercalated``, ``surface_changed``,
    ``out_of_domain``."""
    energy: float | None = None
    max_force: float | None = None
    n_steps: int | None = None
    final_site: str | None = None
    migrated: bool = False
    height: float | None = None
    error: str = ""
    adsorbate: str = ""
    azimuth_deg: int | None = None
    final_coordination: int | None = None
    final_elements: str = ""
    """Of the slab atoms that the binding atom ended on: ``Pt2Ru``."""
    anomalies: str = ""
    """All that was found, ``site_migrated`` and ``not_converged`` included."""
    domain_distance: float | None = None
    """From the training data, in units of the limit."""

    @property
    def is_settled(self) -> bool:
        """Return whether the energy is that of a minimum, as far as forces can tell."""
        small = self.max_force is not None and self.max_force <= PLATEAU_FMAX
        return self.status == "converged" or (self.status == "plateau" and small)
