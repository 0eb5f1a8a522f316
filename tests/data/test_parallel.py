"""Worker processes: order, errors, and workers that die."""

import os

import pytest

from crack_md.data.parallel import map_in_order
from crack_md.errors import TeacherError


def nothing() -> None:
    pass


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    raise TeacherError(f"cannot label {number}")


def die(number: int) -> int:
    os._exit(1)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    found = map_in_order(square, range(20), workers=workers, start=nothing)

    assert list(found) == [number * number for number in range(20)]


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_of_workers_arrive(workers):
    with pytest.raises(TeacherError, match="cannot label 0"):
        list(map_in_order(fail, range(3), workers=workers, start=nothing))


def test_a_worker_that_dies_is_an_error_with_advice():
    with pytest.raises(TeacherError, match="fewer --workers"):
        list(map_in_order(die, range(3), workers=2, start=nothing))
