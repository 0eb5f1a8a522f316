"""What decides how many atoms share a pass: exact numbers, no device needed."""

import pytest
import torch

from crack_md.calculators.batch_size import FILL, AtomLimit, count_in_batch, limit_for
from tests.calculators.engines import Memory


@pytest.mark.parametrize(
    ("sizes", "limit", "count"),
    [
        ([30] * 5, 128, 2),  # then 3: two batches of about equal size
        ([30] * 4, 128, 4),
        ([37] * 4, 128, 2),
        ([300, 1], 128, 1),  # one structure goes whatever its size is
        ([1, 1, 1], 0, 1),  # nothing is known yet
        ([5], 128, 1),
    ],
)
def test_batches_are_of_about_equal_size(
    sizes: list[int], limit: int, count: int
) -> None:
    assert count_in_batch(sizes, limit) == count


def test_no_batch_passes_the_limit() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        sizes = torch.randint(1, 60, (40,), generator=generator).tolist()
        limit = int(torch.randint(60, 300, (1,), generator=generator))
        while sizes:
            count = count_in_batch(sizes, limit)
            assert count >= 1
            assert sum(sizes[:count]) <= limit
            sizes = sizes[count:]


def test_memory_of_a_probe_sets_the_limit() -> None:
    memory = Memory(free=10_000_000, taken=50_000)
    limit = AtomLimit(memory=memory)
    assert limit.atoms(width=20) == 0, "one structure goes alone"
    assert limit.observe(500, lambda: "answer") == "answer"
    # 100 bytes per entry; rows of 20 entries
    assert limit.atoms(width=20) == FILL * 10_000_000 / (100 * 20)
    assert limit.atoms(width=40) == FILL * 10_000_000 / (100 * 40)
    memory.free = 1_000_000
    assert limit.atoms(width=20) == FILL * 1_000_000 / (100 * 20)


def test_memory_is_measured_again_for_much_larger_batches_only() -> None:
    memory = Memory(free=10_000_000, taken=50_000)
    limit = AtomLimit(memory=memory)
    for entries, n_measured in ((500, 1), (400, 1), (1000, 1), (1001, 2), (1001, 2)):
        limit.observe(entries, lambda: None)
        assert memory.n_measured == n_measured
    assert limit.atoms(width=1) == int(FILL * 10_000_000 / (50_000 / 1001))


def test_what_did_not_fit_is_not_tried_again() -> None:
    limit = AtomLimit(memory=Memory(free=10_000_000, taken=1))
    limit.observe(1000, lambda: None)
    limit.lower(300)
    assert limit.atoms(width=1) == 150
    limit.lower(1000)
    assert limit.atoms(width=1) == 150


def test_a_cpu_has_a_fixed_limit_unless_told_otherwise() -> None:
    limit = limit_for(torch.device("cpu"))
    assert limit.atoms(width=40) == 128
    assert limit.atoms(width=8) == 640, "small molecules share larger passes"
    limit.lower(100)
    assert limit.atoms(width=8) == 50
    assert limit_for(torch.device("cpu"), 500).atoms(width=40) == 500


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_is_measured() -> None:
    limit = limit_for(torch.device("cuda"))
    assert limit.atoms(width=1) == 0
    ones = limit.observe(1000, lambda: torch.ones(250_000, device="cuda"))
    free = torch.cuda.mem_get_info()[0]
    assert limit.atoms(width=1) == pytest.approx(FILL * free / 1000, rel=0.05)
    assert ones.sum() == 250_000
