"""Planes of a crystal: what Miller indices refer to, and cells that lie along a plane.

A lattice plane (hkl) has the normal G = h a* + k b* + l c* and the spacing 1/|G|. The
vectors of the lattice in the plane are those integers n with h·n = 0.
"""

import re
from fractions import Fraction
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crack_md.errors import ConfigError
from crack_md.workflows.surfaces.slab import SlabError

Matrix = NDArray[np.float64]
Integers = NDArray[np.int_]

ANGLE_DEG = 0.05
LENGTH_RATIO = 1e-3
MOST_CELLS = 12
CENTRED = (
    (60.0, "face-centred", np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]])),
    (np.degrees(np.arccos(-1 / 3)), "body-centred", 1 - np.eye(3, dtype=int)),
)
"""Angle between primitive vectors, and the cubic ones as sums of these."""


class Plane(NamedTuple):
    """Miller indices, as they were written and as numbers."""

    text: str
    indices: tuple[int, int, int]
    hexagonal: bool = False
    """Whether there were four, for axes a and b at 120°."""


def parse_planes(text: str) -> tuple[Plane, ...]:
    """Return the planes in ``111,1-10,0001``; of four indices, the third is redundant.

    Raises:
        ConfigError: not a list of Miller indices.
    """
    return tuple(_parse_plane(part.strip()) for part in text.split(","))


def _parse_plane(text: str) -> Plane:
    digits = [int(digit) for digit in re.findall(r"-?\d", text)]
    if "".join(str(digit) for digit in digits) == text and any(digits):
        if len(digits) == 4 and sum(digits[:3]) == 0:
            return Plane(text, (digits[0], digits[1], digits[3]), hexagonal=True)
        if len(digits) == 3:
            return Plane(text, (digits[0], digits[1], digits[2]))
    raise ConfigError(
        f"cannot read the Miller indices '{text}'; expected three digits such as 111 "
        "or 1-10, or four that fit a hexagonal crystal such as 0001, separated by "
        "commas"
    )


def plane_normal(cell: Matrix, plane: Plane) -> tuple[Matrix, str]:
    """Return G in 1/Å, and which axes the indices were taken to refer to.

    They refer to the cell vectors as given, with one exception: where these are
    primitive vectors of a cubic lattice (or multiples of them), indices refer to the
    cubic axes, as everybody writes them.

    Raises:
        SlabError: four indices, and the cell is not hexagonal.
    """
    if plane.hexagonal:
        cell = _hexagonal_axes(cell)
        axes, words = cell, "the hexagonal axes of the cell"
    elif (cubic := _cubic_axes(cell)) is not None:
        axes, kind = cubic
        length = np.linalg.norm(axes[0])
        words = f"the cubic axes of the {kind} lattice, a = {length:.3f} Å"
    else:
        axes, words = cell, "the cell vectors as given"
    return np.linalg.solve(axes, np.array(plane.indices, dtype=float)), words


def _hexagonal_axes(cell: Matrix) -> Matrix:
    """Return the cell with 120° between a and b."""
    lengths = np.linalg.norm(cell, axis=1)
    cosines = cell @ cell.T / np.outer(lengths, lengths)
    alike = abs(lengths[0] / lengths[1] - 1) < 0.02
    upright = max(abs(cosines[0, 2]), abs(cosines[1, 2])) < 0.02
    if not (alike and upright and abs(abs(cosines[0, 1]) - 0.5) < 0.02):
        raise SlabError(
            "not_cut",
            "four Miller indices need a hexagonal cell, a = b at 120° and c upright; "
            "give three for the cell vectors of this one",
        )
    if cosines[0, 1] < 0:
        return cell
    return np.array([cell[0], cell[1] - cell[0], cell[2]])


def _cubic_axes(cell: Matrix) -> tuple[Matrix, str] | None:
    """Return the cubic axes of a cell of primitive vectors or multiples of them."""
    lengths = np.linalg.norm(cell, axis=1)
    for angle, kind, sums in CENTRED:
        for signs in product((1, -1), repeat=2):
            turned = cell * np.array([1, *signs])[:, None]
            cosines = turned @ turned.T / np.outer(lengths, lengths)
            angles = np.degrees(
                np.arccos(np.clip(cosines[[0, 0, 1], [1, 2, 2]], -1, 1))
            )
            if np.abs(angles - angle).max() > ANGLE_DEG:
                continue
            counts = _integer_ratios(lengths)
            if counts is None:
                return None
            axes = sums @ (turned / counts[:, None])
            return _along_xyz(axes), kind
    return None


def _integer_ratios(lengths: Matrix) -> Integers | None:
    """Return the smallest integers in proportion to the lengths, if there are any."""
    ratios = [
        Fraction(length / lengths[0]).limit_denominator(MOST_CELLS)
        for length in lengths
    ]
    common = np.lcm.reduce([ratio.denominator for ratio in ratios])
    counts = np.array([int(ratio * common) for ratio in ratios])
    if counts.min() < 1 or counts.max() > MOST_CELLS:
        return None
    even = np.abs(lengths / counts / (lengths / counts).mean() - 1) < LENGTH_RATIO
    return counts if even.all() else None


def _along_xyz(axes: Matrix) -> Matrix:
    """Return cubic axes in the order and with the signs of x, y and z, if they are."""
    unit = axes / np.linalg.norm(axes, axis=1)[:, None]
    largest = np.abs(unit).argmax(axis=0)
    if np.abs(unit).max(axis=0).min() < 1 - 1e-6:
        return axes
    return axes[largest] * np.sign(unit[largest, range(3)])[:, None]


def integer_indices(vectors: Matrix, normal: Matrix) -> Integers:
    """Return the coprime indices of a plane with respect to lattice vectors.

    Raises:
        SlabError: it is no plane of the lattice.
    """
    steps = vectors @ normal
    scaled = steps / np.abs(steps).max()
    fractions = [Fraction(float(s)).limit_denominator(1000) for s in scaled]
    common = np.lcm.reduce([fraction.denominator for fraction in fractions])
    indices = np.array([int(fraction * int(common)) for fraction in fractions])
    if np.abs(indices / common - scaled).max() > 1e-5:
        raise SlabError("not_cut", "no plane of the lattice has these indices")
    return np.asarray(indices // np.gcd.reduce(indices))


def cell_along(indices: Integers) -> Integers:
    """Return integer rows u, v, w of determinant 1 with h·u = h·v = 0 and h·w = 1."""
    h, k, n = (int(index) for index in indices)
    divisor, x, y = _bezout(h, k)
    if divisor == 0:
        rows = np.array([[1, 0, 0], [0, 1, 0], [0, 0, n]])
    else:
        _, s, t = _bezout(divisor, n)
        rows = np.array(
            [
                [-k // divisor, h // divisor, 0],
                [-n * x, -n * y, divisor],
                [s * x, s * y, t],
            ]
        )
    if round(np.linalg.det(rows)) < 0:
        rows[0] = -rows[0]
    return rows


def _bezout(a: int, b: int) -> tuple[int, int, int]:
    """Return g, x, y with a·x + b·y = g, the greatest common divisor."""
    x, y, next_x, next_y = 1, 0, 0, 1
    while b:
        quotient = a // b
        a, b = b, a - quotient * b
        x, next_x = next_x, x - quotient * next_x
        y, next_y = next_y, y - quotient * next_y
    return (a, x, y) if a >= 0 else (-a, -x, -y)
