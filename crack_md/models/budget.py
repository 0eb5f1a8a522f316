"""Building no more than a file can fill."""

import math
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class ElementBudget(TorchDispatchMode):
    """Refuses tensors, while it is entered, once they have too many elements in all.

    An architecture that a file describes may be any number of times larger than the
    weights beside it: it would fill the memory before the two are compared.

    Args:
        most: elements of all new tensors together.
    """

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._most = self._left = most

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Count the elements of a new tensor before it is made."""
        size = args[0] if args else None
        if isinstance(size, list | tuple) and all(isinstance(n, int) for n in size):
            self._left -= math.prod(size)
        if self._left < 0:
            raise ValueError(f"it has more than {self._most:,} numbers")
        return func(*args, **(kwargs or {}))
