"""The evaluation cache answers what the net would have answered, and nothing else."""

from __future__ import annotations

import functools
import random
from collections import deque

import numpy as np
import pytest

from selfplay.environments.game import Game, RawObservation, load, spec_from_string
from selfplay.search import BatchedSearch, SearchConfig, SearchResult
from selfplay.search import cache as table
from selfplay.search.hash_net import HashNet

Array = np.ndarray
DIGESTS = ("ab" * 32, "cd" * 32)


@functools.cache
def game_of(name: str) -> Game:
    return load(spec_from_string(name))


def lines(game: Game, count: int, plies: int, seed: int) -> list[list[int]]:
    """Random lines of play that do not end the game."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        state, line = game.new_initial_state(), []
        for _ in range(rng.randrange(plies)):
            action = rng.choice(state.legal_actions())
            if state.child(action).is_terminal():
                break
            state.apply_action(action)
            line.append(action)
        found.append(line)
    return found


def run(search: BatchedSearch, jobs: list[list[int]], simulations: int) -> list[SearchResult]:
    """Searches all positions, a slot taking the next as soon as it is free."""
    waiting, running = deque(enumerate(jobs)), {}
    found: dict[int, SearchResult] = {}

    def begin(slot: int) -> None:
        if waiting:
            running[slot], line = waiting.popleft()
            search.start(slot, search.game.after(line), simulations)

    for slot in range(search.slots):
        begin(slot)
    while running:
        for slot in search.tick():
            found[running.pop(slot)] = search.result(slot)
            begin(slot)
    return [found[i] for i in range(len(jobs))]


def assert_same(a: SearchResult, b: SearchResult) -> None:
    for name in ("actions", "visits", "prior", "q", "policy_target", "action", "root_value", "raw_value"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


class Asked:
    """A net that remembers what it was asked."""

    def __init__(self, game: Game, salt: int = 0) -> None:
        self.net = HashNet(game.num_actions, salt=salt)
        self.inputs: list[bytes] = []

    def __call__(self, batch: Array) -> tuple[Array, Array]:
        self.inputs += [row.tobytes() for row in batch]
        return self.net(batch)


@pytest.mark.parametrize("algorithm", ["gumbel", "puct"])
@pytest.mark.parametrize("name", ["tic_tac_toe", "connect_four", "mancala", "dots_and_boxes(num_rows=2,num_cols=2)"])
def test_a_cache_changes_nothing_but_the_work(name: str, algorithm: str) -> None:
    """Ample, small, tiny and no cache: equal searches, fewer questions."""
    game = game_of(name)
    jobs = lines(game, 40, 12, seed=3)
    config = SearchConfig(algorithm=algorithm)  # type: ignore[arg-type]
    found, asked = [], []
    for entries in (0, 5000, 900, 40, 2, 1):
        net = Asked(game)
        search = BatchedSearch(game, net, config, slots=7, max_simulations=24, cache_entries=entries)
        found.append(run(search, jobs, 24))
        asked.append(len(net.inputs))
        assert search.stats.evaluations == len(net.inputs) == search.stats.lookups - search.stats.hits
        assert search.stats.simulations == 24 * len(jobs)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert_same(a, b)
    assert asked[1] < asked[0] and max(asked) == asked[0]


def test_each_position_is_asked_once_while_it_fits() -> None:
    """Also where many slots meet it in the same batch, as they all do at the start of a game."""
    game = game_of("connect_four")
    net = Asked(game)
    search = BatchedSearch(game, net, SearchConfig(), slots=32, max_simulations=16, cache_entries=50_000)
    results = run(search, [[]] * 32 + [[3]] * 16 + lines(game, 16, 4, seed=1), 16)
    assert len(net.inputs) == len(set(net.inputs))
    for result in results[:32]:
        assert_same(result, results[0])
    alone = BatchedSearch(game, net, SearchConfig(), slots=1, max_simulations=16)
    assert_same(run(alone, [[]], 16)[0], results[0])
    assert_same(run(alone, [[3]], 16)[0], results[40])


def test_new_weights_forget_everything() -> None:
    game = game_of("connect_four")
    nets = [Asked(game, salt) for salt in range(2)]
    now = 0
    search = BatchedSearch(game, lambda batch: nets[now](batch), SearchConfig(), 4, 16, cache_entries=50_000)
    jobs = lines(game, 20, 6, seed=5)
    search.new_weights(DIGESTS[0])
    old = run(search, jobs, 16)
    questions = len(nets[0].inputs)
    assert_same(run(search, jobs, 16)[0], old[0])
    assert len(nets[0].inputs) == questions  # all of it was known
    now = 1
    search.new_weights(DIGESTS[1])
    new = run(search, jobs, 16)
    fresh = BatchedSearch(game, Asked(game, 1), SearchConfig(), 4, 16)
    for a, b, c in zip(new, run(fresh, jobs, 16), old, strict=True):
        assert_same(a, b)
        assert a.raw_value != c.raw_value
    assert len(nets[0].inputs) == questions
    # Back to the first weights: nothing of the second is left, and the salt alone would tell them apart.
    now = 0
    search.new_weights(DIGESTS[0])
    for a, b in zip(run(search, jobs, 16), old, strict=True):
        assert_same(a, b)
    assert len(nets[0].inputs) == 2 * questions


def test_weights_may_change_in_the_middle_of_searches() -> None:
    """What is found after the change was said by the new net."""
    game = game_of("connect_four")
    nets = [Asked(game, salt) for salt in range(2)]
    now = 0
    search = BatchedSearch(game, lambda batch: nets[now](batch), SearchConfig(), 8, 40, cache_entries=50_000)
    for slot in range(8):
        search.start(slot, game.after([3] * (slot % 3)), 40)
    for _ in range(5):
        assert search.tick() == []
    now = 1
    search.new_weights(DIGESTS[1])
    done: list[int] = []
    while len(done) < 8:
        done += search.tick()
    asked = len(nets[0].inputs)
    jobs = [[], [3], [3, 3], [2], [1, 1]]
    fresh = BatchedSearch(game, Asked(game, 1), SearchConfig(), 4, 40)
    for a, b in zip(run(search, jobs, 40), run(fresh, jobs, 40), strict=True):
        assert_same(a, b)
    assert len(nets[0].inputs) == asked


def test_positions_with_more_actions_than_the_pool_holds() -> None:
    """The pool of logits fills up before the table does: hex has 121 actions, the pool 64 for each position."""
    game = game_of("hex(board_size=11)")
    net = Asked(game)
    search = BatchedSearch(game, net, SearchConfig(), slots=4, max_simulations=20, cache_entries=30)
    plain = BatchedSearch(game, net, SearchConfig(), slots=4, max_simulations=20)
    jobs = lines(game, 10, 3, seed=2) * 2
    for a, b in zip(run(search, jobs, 20), run(plain, jobs, 20), strict=True):
        assert_same(a, b)
    assert search._cache.used[0] <= len(search._cache.row) and (search._cache.row < len(search._cache.logits)).all()
    # Between ticks no entry may wait for a row of a batch that is gone.
    rows = search._cache.row[search._cache.row != table.EMPTY]
    assert (rows >= 0).all()


@pytest.mark.parametrize("entries", [3, 40, 300, 3000])
@pytest.mark.parametrize("name", ["connect_four", "othello"])
def test_no_entry_waits_for_a_batch_that_is_gone(name: str, entries: int) -> None:
    game = game_of(name)
    search = BatchedSearch(game, HashNet(game.num_actions), SearchConfig(), 9, 16, cache_entries=entries)
    for slot, line in enumerate(lines(game, 9, 20, seed=8)):
        search.start(slot, game.after(line), 16)
    finished = 0
    while finished < 9:
        finished += len(search.tick())
        rows = search._cache.row[search._cache.row != table.EMPTY]
        assert (rows >= 0).all() and (rows < search._cache.used[1]).all()
        assert len(rows) == search._cache.used[0] <= 3 * len(search._cache.row) // 4


@pytest.mark.parametrize("name", ["connect_four", "go(board_size=5)", "mancala", "chess"])
def test_no_two_positions_share_a_key(name: str) -> None:
    """Random positions: equal keys if and only if observation, seat and legal actions are equal, half by half."""
    game = game_of(name)
    raw = RawObservation(game.game)
    salt = np.frombuffer(bytes.fromhex("5e8f" * 8), np.uint64) ^ np.array([0, 7], np.uint64)
    rng = random.Random(0)
    keys: dict[tuple[int, int], bytes] = {}
    contents: set[bytes] = set()
    for _ in range(60):
        state = game.new_initial_state()
        for _ in range(60):
            if state.is_terminal():
                break
            seat = state.current_player()
            raw.set_from(state, seat)
            actions = np.array(state.legal_actions(), np.int32)
            content = bytes([seat]) + raw.tensor.tobytes() + actions.tobytes()
            key = table.hash_position(raw.tensor.view(np.uint32), np.int8(seat), actions, salt)
            assert keys.setdefault(key, content) == content
            contents.add(content)
            other = table.hash_position(raw.tensor.view(np.uint32), np.int8(1 - seat), actions, salt)
            fewer = table.hash_position(raw.tensor.view(np.uint32), np.int8(seat), actions[1:], salt)
            salted = table.hash_position(raw.tensor.view(np.uint32), np.int8(seat), actions, ~salt)
            assert len({key, other, fewer, salted}) == 4
            state.apply_action(rng.choice(state.legal_actions()))
    assert len(keys) == len(contents) > 300
    for half in range(2):
        assert len({key[half] for key in keys}) == len(keys)


def test_inputs_of_a_few_bits_do_not_collide() -> None:
    """All boards with up to two stones in 91 places, and pairs of neighbours swapped: the weak spot of cheap hashes."""
    size, salt, none = 91, np.zeros(2, np.uint64), np.zeros(0, np.int32)
    keys = set()
    count = 0
    words = np.zeros(size, np.float32)
    for i in range(size):
        for j in range(i, size):
            for a, b in ((1.0, 1.0), (1.0, 0.5), (0.5, 1.0), (-1.0, 1.0)):
                words[i] = a
                words[j] = b
                keys.add(table.hash_position(words.view(np.uint32), np.int8(0), none, salt))
                words[i] = words[j] = 0.0
                count += 1
    repeated = 91 * 2  # i == j: only b counts, so (1, 1), (0.5, 1) and (-1, 1) are one board
    assert len(keys) == count - repeated
    for half in range(2):
        assert len({key[half] for key in keys}) == len(keys)


def test_a_full_table_still_finds_the_empty_slot() -> None:
    """Open addressing at its limit of three quarters: every key is found again, and no other."""
    cache = table.new_cache(48, 0)
    assert len(cache.row) == 64
    rng = np.random.default_rng(0)
    keys = [tuple(rng.integers(0, 2**63, 2).astype(np.uint64)) for _ in range(48)]
    for number, (a, b) in enumerate(keys):
        assert table.has_room(cache, 1, 0)
        place = table.find(cache, a, b)
        assert cache.row[place] == table.EMPTY
        table.reserve(cache, place, a, b, number)
    assert not table.has_room(cache, 1, 0)
    assert sorted(-1 - int(cache.row[table.find(cache, a, b)]) for a, b in keys) == list(range(48))
    a, b = keys[0]
    assert cache.row[table.find(cache, a, b + np.uint64(1))] == table.EMPTY
    table.clear(cache)
    assert table.has_room(cache, 48, 0)
    assert all(cache.row[table.find(cache, a, b)] == table.EMPTY for a, b in keys)
