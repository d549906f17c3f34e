"""Of CUDA graphs what needs no GPU: the sizes that batches are padded to. The rest is in tests/gpu."""

from __future__ import annotations

from selfplay.nets.cuda_graphs import padded


def test_batches_are_padded_to_few_sizes_and_by_a_quarter_at_most() -> None:
    sizes = [padded(count) for count in range(1, 8193)]
    assert all(count <= size for count, size in enumerate(sizes, 1)) and sizes == sorted(sizes)
    assert all(size <= 1.25 * count for count, size in enumerate(sizes, 1) if count > 64)
    assert sizes[0] == 16 and sizes[-1] == 8192 and len(set(sizes)) == 32
    assert all(padded(size) == size for size in sizes), "a padded size is not padded again"
