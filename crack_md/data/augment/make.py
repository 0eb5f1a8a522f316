"""All frames of a structure: displaced ones, a relaxation's, a thermal run's.

Each frame is drawn from a generator that the caller seeds per structure. Frames that
the teacher visited while relaxing or running carry its labels in `info` already.
"""

from collections.abc import Callable, Iterator
from functools import partial

from ase import Atoms
from numpy.random import Generator

from crack_md.data.augment.approach import pressed, pulled, pushed, stretched
from crack_md.data.augment.distort import (
    given,
    hot,
    rattled,
    scaled,
    sheared,
    strained,
    with_vacancy,
)
from crack_md.data.augment.dynamics import relaxed, thermal
from crack_md.data.augment.variants import Variant, Variants
from crack_md.errors import TeacherError
from crack_md.models.teachers.base import Teacher

MAKERS: dict[str, tuple[str, Callable[..., Iterator[Atoms]]]] = {
    "rattle": ("rattled", rattled),
    "strain": ("strained", strained),
    "given": ("given", given),
    "scale": ("scaled", scaled),
    "shear": ("sheared", sheared),
    "vacancy": ("vacancy", with_vacancy),
    "hot": ("hot", hot),
    "push": ("pushed", pushed),
    "pull": ("pulled", pulled),
    "stretch": ("stretched", stretched),
    "contact": ("contact", pressed),
}
"""Key in a recipe: kind of the frames, and what makes them without a teacher."""


def make_frames(
    atoms: Atoms, variants: Variants, *, teacher: Teacher | None, random: Generator
) -> list[Atoms]:
    """Return the frames that a recipe asks for, `info["kind"]` set.

    Every variant is made with the probability `share`. Constraints of the structure are
    honoured in relaxations and runs and kept in the frames.
    """
    makers = MAKERS | {
        "relax": ("relaxed", partial(_with_teacher, relaxed, teacher)),
        "thermal": ("thermal", partial(_with_teacher, thermal, teacher)),
    }
    frames: list[Atoms] = []
    for key, (kind, make) in makers.items():
        section: Variant | None = getattr(variants, key)
        if section is None or random.random() >= section.share:
            continue
        for frame in make(atoms, section, random=random):
            frame.info.setdefault("kind", kind)
            frames.append(frame)
    return frames


def _with_teacher(
    make: Callable[..., Iterator[Atoms]],
    teacher: Teacher | None,
    atoms: Atoms,
    section: Variant,
    *,
    random: Generator,
) -> Iterator[Atoms]:
    if teacher is None:
        raise TeacherError(
            "relaxed and thermal frames are made with a teacher; pass --teacher, or "
            "leave 'relax' and 'thermal' out of the recipe"
        )
    return make(atoms, section, teacher=teacher, random=random)
