"""Names of sites: what they are, and which elements they are made of."""

from collections import Counter
from collections.abc import Iterable, Sequence

KINDS = ("ontop", "bridge", "fcc", "hcp", "hollow", "4fold")


def formula(symbols: Iterable[str]) -> str:
    """Return ``Pt2Ru`` for two Pt and a Ru: the commonest first, then by name."""
    counts = sorted(Counter(symbols).items(), key=lambda item: (-item[1], item[0]))
    return "".join(f"{symbol}{n if n > 1 else ''}" for symbol, n in counts)


def labelled(
    sites: Sequence[tuple[str, str]], *, one_element: bool, one_on_top: bool
) -> list[str]:
    """Return a unique label for every site of a slab, as short as tells them apart.

    A pure metal has ``fcc``, or ``fcc-1`` and ``fcc-2``. Where elements differ, labels
    name those of the contacts, ``fcc-Pt2Ru``; where that is not enough, the nearest
    atoms beneath, ``fcc-Pt3/Ru``; where that is not enough, a number.

    Args:
        sites: kind and elements (``Pt2Ru/Pt3``) of every site.
        one_element: whether the whole slab is of one element.
        one_on_top: whether all exposed atoms are.
    """
    kinds = Counter(kind for kind, _ in sites)
    distinct = Counter(_contacts(kind, elements) for kind, elements in set(sites))
    labels = []
    for kind, elements in sites:
        alone = kinds[kind] == 1 and one_on_top
        if one_element or alone:
            labels.append(kind)
        elif distinct[_contacts(kind, elements)] == 1:
            labels.append(_contacts(kind, elements))
        else:
            labels.append(f"{kind}-{elements}")
    counts, seen = Counter(labels), Counter[str]()
    for place, label in enumerate(labels):
        seen[label] += 1
        if counts[label] > 1:
            labels[place] = f"{label}-{seen[label]}"
    return labels


def _contacts(kind: str, elements: str) -> str:
    return f"{kind}-{elements.partition('/')[0]}"
