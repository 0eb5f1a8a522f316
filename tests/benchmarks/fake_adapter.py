"""An engine for tests of the worker and of its driver: it does what options say."""

import os
import time
from pathlib import Path
from typing import Any


def start(threads: int) -> None:
    print(f"{threads} threads")


def load(options: dict[str, Any]) -> "FakePeer":
    print("a library says hello")
    os.system("echo and so does its C code")
    return FakePeer(options)


class FakePeer:
    about = {"weights": 3, "versions": {"fake": "1.0"}}  # noqa: RUF012

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def case(self, work: str, structures: list[dict[str, Any]]) -> "FakeCase":
        if work == "network":
            raise NotImplementedError("the graph is made inside the model")
        return FakeCase(self.options, sum(len(one["numbers"]) for one in structures))

    def synchronize(self) -> None:
        pass

    def reset_peak(self) -> None:
        pass

    def peak_bytes(self) -> int:
        return 1234

    def release(self) -> None:
        pass


class FakeCase:
    def __init__(self, options: dict[str, Any], n_atoms: int) -> None:
        self.options, self.n_atoms = options, n_atoms

    def advance(self) -> None:
        pass

    def predict(self) -> tuple[list[float], list[list[list[float]]]]:
        shift = self.options.get("shift", 0.0)
        return [1.0 + shift], [[[0.5 + shift, 0.0, 0.0]] * self.n_atoms]

    def __call__(self) -> None:
        with Path(self.options["diary"]).open("a") as diary:
            diary.write(self.options["name"] + "\n")
        time.sleep(self.n_atoms * self.options.get("seconds_per_atom", 0.0))
        if self.n_atoms < self.options.get("fails_from", 10**9):
            return
        if self.options["failure"] == "dies":
            print("last words", flush=True)
            os._exit(3)
        elif self.options["failure"] == "hangs":
            time.sleep(60)
        elif self.options["failure"] == "memory":
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB")
