"""The replay window: the newest positions, stored compactly, sampled as dense batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from selfplay.contract import Symmetry
from selfplay.episode.rows import Rows, ragged


@dataclass(frozen=True)
class WindowSettings:
    """How many of the newest positions are kept: KataGo's power law (arXiv:1902.10565, SelfplayTraining.md).

    initial: capacity c0 until c0 positions have been seen.
    alpha, beta: capacity(total) = c0 * (1 + beta * ((total / c0)^alpha - 1) / alpha) after that.
    maximum: never more than this.
    """

    initial: int = 20_000
    alpha: float = 0.65
    beta: float = 0.4
    maximum: int = 500_000

    def capacity(self, total: int) -> int:
        """Positions kept once `total` have been seen; never more than `total` needs at the start."""
        grown = self.initial
        if total > self.initial:
            grown = self.initial * (1 + self.beta * ((total / self.initial) ** self.alpha - 1) / self.alpha)
        return max(1, min(int(grown), self.maximum))

    def divided(self, shards: int) -> WindowSettings:
        """Of the window of one of N learners."""
        return replace(self, initial=max(1, self.initial // shards), maximum=max(1, self.maximum // shards))


def draw(rng: np.random.Generator, rows: int, batch: int) -> np.ndarray:
    """`[batch]` indices into a window of `rows` rows: without repetition where there are enough."""
    if batch <= rows:
        return rng.choice(rows, batch, replace=False, shuffle=False)
    return rng.integers(rows, size=batch)


def step_rng(seed: int, step: int, rank: int) -> np.random.Generator:
    """What learner `rank` samples its part of step `step` with."""
    return np.random.default_rng((seed, step, rank))


class ReplayWindow:
    """The newest `capacity` positions, first in first out.

    Observations are kept as bits where an entry was only ever 0 or 1, otherwise as float16 (float32 where float16
    would overflow); policies ragged, as float16; so a Connect Four position takes about 80 bytes.

    total: positions seen since the run began, those forgotten included.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_actions: int,
        settings: WindowSettings,
        symmetries: Sequence[Symmetry] = (),
    ) -> None:
        """`symmetries` (without the identity): one of them, or none, is drawn for each sampled position."""
        self.input_shape = tuple(input_shape)
        self.num_actions = num_actions
        self.settings = settings
        self.total = 0
        self._symmetries = tuple(symmetries)
        identity = np.arange(num_actions)
        self._permutations = np.stack([identity, *(np.array(s.actions) for s in self._symmetries)]).astype(np.int32)
        self._binary = np.ones(int(np.prod(self.input_shape)), bool)  # entries that were only ever 0 or 1
        self._bits = _Tail((len(self._packed(0)),), np.uint8)
        self._floats = _Tail((0,), np.float16)
        self._numbers = _Tail((5,), np.float32)  # z, q, policy_weight, z_weight, q_weight
        self._ends = _Tail((), np.int64)  # where each row's policy ends, counted over all entries ever added
        self._starts = _Tail((), np.int64)
        self._actions = _Tail((), np.uint16 if num_actions <= 65_536 else np.int32)
        self._targets = _Tail((), np.float16)
        self._entries = 0  # policy entries ever added

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def capacity(self) -> int:
        """Positions kept now, see `WindowSettings.capacity`."""
        return self.settings.capacity(self.total)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return sum(tail.nbytes for tail in self._tails())

    def add(self, rows: Rows, new: bool = True) -> None:
        """Appends rows and forgets the oldest. `new` False: rows put back after a restart, already in `total`."""
        if rows.observations.shape[1:] != self.input_shape:
            raise ValueError(f"rows have observations {rows.observations.shape[1:]}, the window {self.input_shape}")
        self.total += len(rows) if new else 0
        keep = self.capacity
        observations = rows.observations.reshape(len(rows), -1)
        fractional = ~((observations == 0) | (observations == 1)).all(0)
        if (fractional & self._binary).any():
            self._unpack_more(self._binary & ~fractional)
        self._bits.append(np.packbits(observations[:, self._binary].astype(np.uint8), axis=1))
        self._append_floats(observations[:, ~self._binary])
        self._numbers.append(np.stack([rows.z, rows.q, rows.policy_weight, rows.z_weight, rows.q_weight], 1))
        self._starts.append(rows.offsets[:-1] + self._entries)
        self._ends.append(rows.offsets[1:] + self._entries)
        self._actions.append(rows.actions)
        self._targets.append(rows.targets)
        self._entries += int(rows.offsets[-1])
        for tail in (self._bits, self._floats, self._numbers, self._starts, self._ends):
            tail.trim(keep)
        kept = self._entries - int(self._starts.array[0]) if len(self) else 0
        self._actions.trim(kept)
        self._targets.trim(kept)

    def sample(self, batch: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """`batch` positions drawn evenly, without repetition where there are enough, each under a random symmetry.

        Returns `observations` `[B, *input_shape]` float32; `policy` `[B, A]` float32, sums to 1 over the legal
        actions; `legal` `[B, A]` bool; `z`, `q` in [-1, 1] (point of view of the seat to act), `policy_weight`,
        `z_weight` and `q_weight`, each `[B]` float32.
        """
        if not len(self):
            raise ValueError("the replay window is empty; add rows first")
        index = draw(rng, len(self), batch)
        images = rng.integers(len(self._permutations), size=batch)
        observations = self._observations(index).reshape(batch, *self.input_shape)
        for i, symmetry in enumerate(self._symmetries, start=1):
            chosen = np.flatnonzero(images == i)
            observations[chosen] = symmetry.observation(observations[chosen])
        first = self._entries - len(self._actions)
        flat, offsets = ragged(self._starts.array[index] - first, self._ends.array[index] - first)
        row = np.repeat(np.arange(batch), np.diff(offsets))
        action = self._permutations[images[row], self._actions.array[flat]]
        policy = np.zeros((batch, self.num_actions), np.float32)
        legal = np.zeros((batch, self.num_actions), bool)
        policy[row, action] = self._targets.array[flat]
        legal[row, action] = True
        policy /= np.maximum(policy.sum(1, keepdims=True), 1e-9)
        names = ("z", "q", "policy_weight", "z_weight", "q_weight")
        numbers = dict(zip(names, np.ascontiguousarray(self._numbers.array[index].T), strict=True))
        return {"observations": observations, "policy": policy, "legal": legal, **numbers}

    def _observations(self, index: np.ndarray) -> np.ndarray:
        """`[K, entries]` float32 of the rows at `index`."""
        out = np.empty((len(index), len(self._binary)), np.float32)
        bits = np.unpackbits(self._bits.array[index], axis=1, count=int(self._binary.sum()))
        if self._binary.all():
            out[:] = bits
        else:
            out[:, self._binary] = bits
            out[:, ~self._binary] = self._floats.array[index]
        return out

    def _packed(self, value: int) -> np.ndarray:
        return np.packbits(np.full(int(self._binary.sum()), value, np.uint8))

    def _unpack_more(self, binary: np.ndarray) -> None:
        """Entries outside `binary` turned out not to be bits: rewrites what is held."""
        held = self._observations(np.arange(len(self)))
        self._binary = binary
        self._bits = _Tail((len(self._packed(0)),), np.uint8)
        self._bits.append(np.packbits(held[:, binary].astype(np.uint8), axis=1))
        dtype = self._floats.array.dtype
        self._floats = _Tail((int((~binary).sum()),), dtype)
        self._floats.append(held[:, ~binary])

    def _append_floats(self, values: np.ndarray) -> None:
        if values.size and self._floats.array.dtype == np.float16 and np.abs(values).max() > 65_000:
            wider = _Tail(values.shape[1:], np.float32)
            wider.append(self._floats.array)
            self._floats = wider
        self._floats.append(values)

    def _tails(self) -> tuple[_Tail, ...]:
        policy = (self._starts, self._ends, self._actions, self._targets)
        return (self._bits, self._floats, self._numbers, *policy)


class _Tail:
    """The last rows of an endless array: `append` at the end, `trim` from the front, `array` is contiguous."""

    def __init__(self, shape: tuple[int, ...], dtype: type | np.dtype) -> None:
        self._data = np.empty((0, *shape), dtype)
        self._start = self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def array(self) -> np.ndarray:
        """What is held, `[len, *shape]`; a view that the next `append` may invalidate."""
        return self._data[self._start : self._stop]

    @property
    def nbytes(self) -> int:
        return int(self._data.nbytes)

    def append(self, rows: np.ndarray) -> None:
        if self._stop + len(rows) > len(self._data):  # move what is held to the front, of a larger array if needed
            held, length = self.array, len(self)
            need, data = length + len(rows), self._data
            if need * 1.25 > len(data):
                data = np.empty((int(need * 1.5), *held.shape[1:]), held.dtype)
            data[:length] = held
            self._data, self._start, self._stop = data, 0, length
        self._data[self._stop : self._stop + len(rows)] = rows
        self._stop += len(rows)

    def trim(self, keep: int) -> None:
        self._start = max(self._start, self._stop - keep)
