"""Files in the format of PyTorch before 1.6: a stream of pickles, then the tensors."""

import os
import pickle
import pickletools
from pathlib import Path

N_PICKLES = 4
"""A magic number, a version, a description of the machine, and the contents."""
KNOWN = frozenset(
    [
        "collections OrderedDict",
        "torch Size",
        "torch._utils _rebuild_tensor",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_parameter",
    ]
)


def check_stream(path: Path) -> None:
    """Refuse a file that could take more memory than its size.

    Storages are allocated by a length that the file states, and read afterwards: no
    whole number in it may exceed the size of the file.

    Raises:
        pickle.UnpicklingError: it holds a larger one, or other objects than tensors.
        ValueError: it is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(0, os.SEEK_SET)
        for number in range(N_PICKLES):
            for code, argument, _ in pickletools.genops(stream):
                if code.name in ("GLOBAL", "INST", "STACK_GLOBAL", "BYTEARRAY8"):
                    _check_name(code.name, str(argument))
                too_large = isinstance(argument, int) and argument > size
                if number and too_large:  # the magic number comes first
                    raise pickle.UnpicklingError(
                        f"the number {argument} in a file of {size} bytes"
                    )


def _check_name(code: str, name: str) -> None:
    module, _, kind = name.partition(" ")
    is_storage = module in ("torch", "torch.cuda") and kind.endswith("Storage")
    if code != "GLOBAL" or not (name in KNOWN or is_storage):
        raise pickle.UnpicklingError(f"an object of '{name}'")
