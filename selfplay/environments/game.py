"""A game as the factory uses it: loaded from its spec, with its observation encoded for a net.

OpenSpiel's `State` stays the interface of the rules. This module answers what OpenSpiel leaves open: which seat's
observation a net is shown, whether that observation says whose move it is, in what units values are, and whether the
batched search can play the game at all. It imports neither torch nor ray nor numba, and pyspiel when a game of
OpenSpiel is loaded.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from selfplay.contract import GameSpec, Symmetry
from selfplay.errors import UserError

if TYPE_CHECKING:
    import pyspiel

Array = np.ndarray[Any, Any]

#: An id "openspiel/NAME-v0" stands for an OpenSpiel game that has no spec of its own.
OPENSPIEL_PREFIX = "openspiel:"
DERIVED_PLY_LIMIT = 1024
#: How OpenSpiel names the line of its sources that refused something.
_SOURCE_PLACE = re.compile(r"(?:[\w./-]*/)?[\w.-]+\.(?:cc|h|py):\d+:?")


class RawObservation:
    """A reusable buffer with OpenSpiel's own observation of one state.

    tensor: `[raw_size]` float32, overwritten by every `set_from`; C++ games write it in place.
    """

    def __init__(self, game: pyspiel.Game) -> None:
        self._information_state = not game.get_type().provides_observation_tensor
        self._in_place: Any = None
        if not _is_python_game(game) and not self._information_state:
            import pyspiel

            kind = pyspiel.IIGObservationType(
                perfect_recall=False, public_info=True, private_info=pyspiel.PrivateInfoType.SINGLE_PLAYER
            )
            try:
                self._in_place = pyspiel._Observation(game, game.make_observer(kind, {}))
                self.tensor: Array = np.frombuffer(self._in_place, np.float32)
            except (RuntimeError, pyspiel.SpielError):
                self._in_place = None
        if self._in_place is None:
            self.tensor = np.zeros(raw_size(game), np.float32)
            self.set_from = self._copy_from
        else:
            self.set_from = self._in_place.set_from

    def _copy_from(self, state: pyspiel.State, seat: int) -> None:
        read = state.information_state_tensor if self._information_state else state.observation_tensor
        self.tensor[:] = read(seat)


def raw_shape(game: pyspiel.Game) -> list[int]:
    """The shape of OpenSpiel's observation (of its information state where it has no observation)."""
    if game.get_type().provides_observation_tensor:
        return list(game.observation_tensor_shape())
    return list(game.information_state_tensor_shape())


def raw_size(game: pyspiel.Game) -> int:
    return math.prod(raw_shape(game))


def _is_python_game(game: pyspiel.Game) -> bool:
    return hasattr(game, "make_py_observer")


@dataclass(frozen=True)
class Encoder:
    """How a state becomes the input of a net: always what the seat to act sees, and whose move it is.

    shape: of the input, `[C, H, W]` for boards, `[N]` otherwise.
    gather: `[seats, raw_size]` int32; input entry i of seat s to act is raw observation entry `gather[s, i]`.
    seat_plane: whether a constant plane (one entry where the input is flat) with the seat to act, 0 or 1, follows.
    """

    game: pyspiel.Game
    shape: tuple[int, ...]
    gather: Array
    seat_plane: bool
    _raw: RawObservation
    _symmetries: tuple[Symmetry, ...]

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def encode(self, state: pyspiel.State, out: Array | None = None) -> Array:
        """The input `[*shape]` float32 for the seat to act in `state`; written to `out` if given."""
        if out is None:
            out = np.empty(self.shape, np.float32)
        seat = state.current_player()
        self._raw.set_from(state, seat)
        flat = out.reshape(-1)
        n = self.gather.shape[1]
        np.take(self._raw.tensor, self.gather[seat], out=flat[:n])
        flat[n:] = seat
        return out

    def look(self, state: pyspiel.State, seat: int, out: Array) -> None:
        """Writes what OpenSpiel shows `seat` to `out` `[raw_size]` float32; `arrange` makes inputs of many such."""
        self._raw.set_from(state, seat)
        out[:] = self._raw.tensor

    def arrange(self, raw: Array, seats: Array) -> Array:
        """The inputs `[N, *shape]` float32 for raw observations `[N, raw_size]` of the seats `[N]`, each to act."""
        out = np.empty((len(raw), self.size), np.float32)
        n = self.gather.shape[1]
        for seat in np.unique(seats):
            mine = np.flatnonzero(seats == seat)
            out[mine, :n] = raw[mine][:, self.gather[seat]]
            out[mine, n:] = seat
        return out.reshape(-1, *self.shape)

    def symmetries(self) -> list[Symmetry]:
        """The game's symmetries that hold for the net's input, too, the plane of the seat included."""
        return [symmetry for symmetry in self._symmetries if self._keeps(symmetry)]

    def _keeps(self, symmetry: Symmetry) -> bool:
        probe = np.arange(self.size, dtype=np.float32).reshape(1, *self.shape)
        if self.seat_plane:
            probe[:, -1] = -1.0
        try:
            image = symmetry.observation(probe)
        except (IndexError, ValueError):
            return False
        same = not self.seat_plane or bool((image[:, -1] == -1.0).all())
        return image.shape == probe.shape and same and np.array_equal(np.sort(image, None), np.sort(probe, None))


def _encoder(game: pyspiel.Game, spec: GameSpec) -> Encoder:
    raw = raw_shape(game)
    size = math.prod(raw)
    shape: tuple[int, ...]
    shape = (size,) if len(raw) == 1 else (size // (raw[-1] * raw[-2]), raw[-2], raw[-1])
    seats = game.num_players()
    gather = np.tile(np.arange(size, dtype=np.int32), (seats, 1))
    seat_plane = False
    if spec.seat_planes is not None:
        if len(spec.seat_planes) != seats or any(sorted(p) != list(range(shape[0])) for p in spec.seat_planes):
            raise ValueError(f"{spec.id}: seat_planes must hold a permutation of {shape[0]} planes for each seat")
        planes = gather[0].reshape(shape[0], -1)
        gather = np.stack([planes[list(order)].reshape(-1) for order in spec.seat_planes])
    elif seats > 1 and _ignores_seat(game):
        seat_plane = True
        shape = (size + 1,) if len(shape) == 1 else (shape[0] + 1, *shape[1:])
    return Encoder(game, shape, np.ascontiguousarray(gather), seat_plane, RawObservation(game), spec.symmetries)


def _ignores_seat(game: pyspiel.Game, plies: int = 40) -> bool:
    """Whether the observation is the same whichever seat asks, along one fixed random line of play."""
    rng = np.random.default_rng(0)
    state = game.new_initial_state()
    raw = RawObservation(game)
    for _ in range(plies):
        if state.is_terminal():
            break
        if state.is_chance_node() or state.is_simultaneous_node():
            return False
        views = []
        for seat in range(game.num_players()):
            raw.set_from(state, seat)
            views.append(raw.tensor.copy())
        if any(not np.array_equal(views[0], view) for view in views[1:]):
            return False
        state.apply_action(int(rng.choice(state.legal_actions())))
    return True


class Game:
    """A loaded game. Cheap to make; hold one a process (pyspiel games do not travel between processes).

    value_scale: the largest absolute utility; nets and searches work in units of it, so in [-1, 1].
    outcomes: (win, draw, loss) as utilities of a game whose utilities go from -1 to 1, else None. The value of such a
      game is the expectation of these three, also where it has results in between.
    encoder: net input of a state, or None where OpenSpiel offers no tensor.
    """

    def __init__(self, spec: GameSpec) -> None:
        self.spec = spec
        if spec.register is not None:
            spec.register()
        self.game = _load_openspiel(spec.game)
        with _as_parameters(spec):
            self._measure()

    def _measure(self) -> None:
        """What the rules say of themselves."""
        import pyspiel

        spec = self.spec
        self.num_players: int = self.game.num_players()
        self.num_actions: int = self.game.num_distinct_actions()
        low, high = self.game.min_utility(), self.game.max_utility()
        self.value_scale = float(max(abs(low), abs(high)))
        self.outcomes: tuple[float, ...] | None = (1.0, 0.0, -1.0) if (low, high) == (-1.0, 1.0) else None
        kind = self.game.get_type()
        tensors = kind.provides_observation_tensor or kind.provides_information_state_tensor
        turns = kind.dynamics == pyspiel.GameType.Dynamics.SEQUENTIAL
        self._encoder: Encoder | None = None
        if tensors and turns:
            # A few games announce a tensor that they then refuse to give.
            with contextlib.suppress(pyspiel.SpielError):
                self._encoder = _encoder(self.game, spec)

    @property
    def encoder(self) -> Encoder:
        if self._encoder is None:
            raise UserError(f"{self.spec.id} has no observation tensor that a net could read")
        return self._encoder

    @property
    def string(self) -> str:
        """The full OpenSpiel game string, parameters included."""
        return str(self.game)

    def new_initial_state(self) -> pyspiel.State:
        return self.game.new_initial_state()

    def text(self, state: pyspiel.State) -> str:
        return self.spec.text(state) if self.spec.text else str(state)

    def draw(self, state: pyspiel.State) -> str:
        """The state for a terminal, in rich markup."""
        if self.spec.draw:
            return self.spec.draw(state)
        from rich.markup import escape

        return escape(self.text(state))

    def action_text(self, state: pyspiel.State, action: int) -> str:
        if self.spec.action_text:
            return self.spec.action_text(state, action)
        return str(state.action_to_string(state.current_player(), action))

    def after(self, actions: Sequence[int]) -> pyspiel.State:
        """The state after `actions` from the start."""
        state = self.new_initial_state()
        for action in actions:
            state.apply_action(action)
        return state

    def random_observations(self, count: int, seed: int) -> Array:
        """`[count, *encoder.shape]` float32: what the seats to act see in games of uniformly random legal moves."""
        rng = np.random.default_rng(seed)
        out = np.empty((count, *self.encoder.shape), np.float32)
        state = self.new_initial_state()
        seen = 0
        while seen < count:
            if state.is_terminal():
                state = self.new_initial_state()
            elif state.is_chance_node():
                actions, shares = zip(*state.chance_outcomes(), strict=True)
                state.apply_action(int(rng.choice(actions, p=np.array(shares) / sum(shares))))
            else:
                self.encoder.encode(state, out[seen])
                seen += 1
                state.apply_action(int(rng.choice(state.legal_actions())))
        return out


def load(spec: GameSpec) -> Game:
    """Loads the game of `spec`. Raises `UserError` where OpenSpiel does not know it."""
    return Game(spec)


def _load_openspiel(game_string: str) -> pyspiel.Game:
    import pyspiel

    name = game_string.split("(", 1)[0]
    if name not in pyspiel.registered_names():
        near = difflib.get_close_matches(name, pyspiel.registered_names(), 1)
        hint = f"; the nearest name is {near[0]!r}" if near else ""
        raise UserError(f"OpenSpiel has no game named {name!r}{hint}")
    try:
        with _silent_stderr():
            return pyspiel.load_game(game_string)
    except (pyspiel.SpielError, RuntimeError, IndexError, ValueError) as error:
        kinds = {kind.short_name: kind for kind in pyspiel.registered_games()}
        if not kinds[name].default_loadable:
            needed = ", ".join(sorted(kinds[name].parameter_specification))
            reason = f"OpenSpiel's {name} needs parameters ({needed}), and {game_string!r} makes no game"
            raise UserError(reason) from None
        raise UserError(f"OpenSpiel cannot load {game_string!r}: {_reason(error)}") from None


@contextlib.contextmanager
def _as_parameters(spec: GameSpec) -> Iterator[None]:
    """What OpenSpiel's own rules raise when first asked, as the fault of the parameters in their string."""
    try:
        with contextlib.nullcontext() if spec.register is not None else _silent_stderr():
            yield
    except (ArithmeticError, IndexError, MemoryError, RuntimeError, ValueError) as error:  # SpielError, too
        if spec.register is not None or "(" not in spec.game:
            raise
        given = spec.game.partition("(")[2].removesuffix(")")
        raise UserError(f"OpenSpiel's {spec.game.partition('(')[0]} makes no playable game of {given}") from error


def _reason(error: BaseException) -> str:
    """What OpenSpiel said, in one line and without the place in its sources."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return _SOURCE_PLACE.sub("", lines[-1]).strip(" :") if lines else "no reason given"


@contextlib.contextmanager
def _silent_stderr() -> Iterator[None]:
    """OpenSpiel's C++ prints its errors before it raises them; they are told once, by us."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def spec_from_string(game_string: str) -> GameSpec:
    """A derived spec for "openspiel:hex(board_size=5)" (or the string without the prefix)."""
    text = game_string.removeprefix(OPENSPIEL_PREFIX)
    game = _load_openspiel(text)
    kind = game.get_type()
    length = game.max_game_length()
    return GameSpec(
        id=f"openspiel/{kind.short_name}-v0",
        game=text,
        summary=f"{kind.long_name}, as OpenSpiel plays it",
        ply_limit=max(1, min(length, DERIVED_PLY_LIMIT)),
    )


def unsearchable(game: Game) -> str | None:
    """The property that rules this game out for the two-player search, in words; None if it can be played."""
    import pyspiel

    kind = game.game.get_type()
    if game.num_players != 2:
        return f"it has {game.num_players} player{'s' * (game.num_players != 1)}, and the search plays exactly two"
    if kind.dynamics != pyspiel.GameType.Dynamics.SEQUENTIAL:
        return "its players move simultaneously"
    if kind.chance_mode != pyspiel.GameType.ChanceMode.DETERMINISTIC:
        return "it has chance events"
    if kind.information != pyspiel.GameType.Information.PERFECT_INFORMATION:
        return "its players have hidden information"
    if kind.utility != pyspiel.GameType.Utility.ZERO_SUM:
        return "it is not zero-sum"
    if game._encoder is None:
        return "OpenSpiel gives no observation tensor for it"
    return None
