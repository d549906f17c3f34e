"""The replay window keeps the newest rows, exactly, and samples them under symmetries."""

from __future__ import annotations

import numpy as np
import pytest

from selfplay.contract import Symmetry
from selfplay.episode.rows import Rows, concatenate, take
from trainers.alphazero.replay_window import ReplayWindow, WindowSettings

SHAPE = (2, 2, 3)
ACTIONS = 5


def rows(count: int, seed: int = 0, first: int = 0, scale: float = 1.0) -> Rows:
    """Rows whose z carries their number, so that each can be recognised."""
    rng = np.random.default_rng((seed, first))
    counts = rng.integers(1, ACTIONS + 1, count)
    actions = [np.sort(rng.choice(ACTIONS, n, replace=False)) for n in counts]
    targets = [rng.dirichlet(np.ones(n)) for n in counts]
    return Rows(
        observations=((rng.random((count, *SHAPE)) < 0.5) * scale).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        actions=np.concatenate(actions).astype(np.int32),
        targets=np.concatenate(targets).astype(np.float32),
        z=np.arange(first, first + count, dtype=np.float32),
        q=rng.uniform(-1, 1, count).astype(np.float32),
        policy_weight=rng.random(count).astype(np.float32),
        z_weight=rng.random(count).astype(np.float32),
        q_weight=rng.random(count).astype(np.float32),
    )


def window(initial: int = 100, **options) -> ReplayWindow:
    return ReplayWindow(SHAPE, ACTIONS, WindowSettings(initial=initial, maximum=initial), **options)


def check(sample: dict[str, np.ndarray], added: Rows) -> None:
    """Every sampled row equals the row of that number that was added."""
    for i, number in enumerate(sample["z"].astype(int)):
        j = int(np.flatnonzero(added.z == number)[0])
        np.testing.assert_array_equal(sample["observations"][i], added.observations[j])
        mine = slice(added.offsets[j], added.offsets[j + 1])
        policy, legal = np.zeros(ACTIONS), np.zeros(ACTIONS, bool)
        policy[added.actions[mine]], legal[added.actions[mine]] = added.targets[mine], True
        np.testing.assert_allclose(sample["policy"][i], policy, atol=1e-3)
        np.testing.assert_array_equal(sample["legal"][i], legal)
        for name in ("q", "policy_weight", "z_weight", "q_weight"):
            assert sample[name][i] == getattr(added, name)[j]


@pytest.mark.parametrize("scale", [1.0, 0.5, 1e5], ids=["bits", "float16", "float32"])
def test_sampled_rows_are_the_rows_added(scale: float) -> None:
    replay, parts = window(), [rows(30, first=30 * i, scale=scale) for i in range(7)]
    for i, part in enumerate(parts):
        replay.add(part)
        newest = sorted(concatenate(parts[: i + 1]).z)[-100:]
        sample = replay.sample(len(replay), np.random.default_rng(i))
        assert sorted(sample["z"]) == newest, "the newest rows, each once"
        check(sample, concatenate(parts[: i + 1]))
    assert replay.total == 210 and len(replay) == 100


def test_observations_may_turn_out_not_to_be_bits() -> None:
    replay, first, second = window(), rows(20), rows(20, first=20)
    second.observations[:, 1] *= 0.25
    replay.add(first)
    replay.add(second)
    check(replay.sample(40, np.random.default_rng(0)), concatenate([first, second]))


def test_many_small_additions_cost_little_memory() -> None:
    replay = window(initial=200)
    for i in range(300):
        replay.add(rows(7, first=7 * i))
    bare = 200 * (2 + 5 * 4 + 2 * 8 + ACTIONS * 4)
    assert len(replay) == 200 and replay.nbytes < 2.5 * bare


def test_small_windows_repeat_rows() -> None:
    replay, added = window(), rows(3)
    replay.add(added)
    sample = replay.sample(64, np.random.default_rng(0))
    assert sample["observations"].shape == (64, *SHAPE) and set(sample["z"]) == {0, 1, 2}
    check(sample, added)


def test_policies_sum_to_one_over_legal_actions() -> None:
    replay = window()
    replay.add(rows(100))
    sample = replay.sample(80, np.random.default_rng(0))
    np.testing.assert_allclose(sample["policy"].sum(1), 1, atol=1e-6)
    assert not sample["policy"][~sample["legal"]].any()


def test_symmetries_map_observations_and_actions_together() -> None:
    mirror = Symmetry("mirror", (1, 0, 3, 2, 4), lambda x: x[..., ::-1])
    added = rows(50)
    added.observations[:, 0, 0] = (1, 0, 0)  # so that no observation is its own image
    replay = window(symmetries=[mirror])
    replay.add(added)
    plain = window()
    plain.add(added)
    reference = plain.sample(50, np.random.default_rng(1))
    by_number = {int(z): i for i, z in enumerate(reference["z"])}
    sample = replay.sample(50, np.random.default_rng(2))
    images = 0
    for i, number in enumerate(sample["z"].astype(int)):
        j = by_number[number]
        same = np.array_equal(sample["observations"][i], reference["observations"][j])
        permutation = np.arange(ACTIONS) if same else np.array(mirror.actions)
        if not same:
            images += 1
            np.testing.assert_array_equal(sample["observations"][i], reference["observations"][j][..., ::-1])
        np.testing.assert_array_equal(sample["legal"][i][permutation], reference["legal"][j])
        np.testing.assert_array_equal(sample["policy"][i][permutation], reference["policy"][j])
    assert 10 < images < 40


def test_sampling_depends_on_the_generator_alone() -> None:
    replay = window()
    replay.add(rows(100))
    first, second = (replay.sample(32, np.random.default_rng(3)) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


def test_capacity_follows_the_power_law() -> None:
    settings = WindowSettings(initial=1000, alpha=0.65, beta=0.4, maximum=10**9)
    assert settings.capacity(0) == settings.capacity(1000) == 1000
    slope = (settings.capacity(1100) - 1000) / 100
    assert slope == pytest.approx(0.4, abs=0.02), "just after the start it keeps a share beta of what is new"
    assert settings.capacity(10_000) == int(1000 * (1 + 0.4 * (10**0.65 - 1) / 0.65))
    assert WindowSettings(1000, maximum=1500).capacity(10**6) == 1500
    halves = WindowSettings(500, 0.65, 0.4, 10**9)
    assert 2 * halves.capacity(5_000) == pytest.approx(settings.capacity(10_000), abs=2), "shards add up"


def test_rows_put_back_are_not_counted_again() -> None:
    replay = window(initial=10)
    replay.total = 500
    replay.add(rows(10), new=False)
    assert replay.total == 500 and len(replay) == 10


def test_wrong_rows_are_refused() -> None:
    replay = ReplayWindow((3, 3), 5, WindowSettings())
    with pytest.raises(ValueError, match="observations"):
        replay.add(rows(3))
    with pytest.raises(ValueError, match="empty"):
        replay.sample(3, np.random.default_rng(0))


def test_take_and_concatenate() -> None:
    whole = rows(20)
    parts = [take(whole, np.arange(0, 20, 2)), take(whole, np.arange(1, 20, 2))]
    joined = concatenate(parts)
    back = take(joined, np.argsort(joined.z))
    for name in ("observations", "offsets", "actions", "targets", "z", "q"):
        np.testing.assert_array_equal(getattr(back, name), getattr(whole, name))
