"""Use what was trained: a net and a search that choose moves, without ray.

    from selfplay.agent import Agent
    agent = Agent.load("runs/connect_four")
    agent.act(state, simulations=64)     # -> int
    agent.evaluate(state)                # -> (policy [A], value)
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pyspiel

from selfplay import agent_file
from selfplay.agent_file import SCHEMA
from selfplay.environments import registry
from selfplay.environments.game import Game, load
from selfplay.errors import UserError
from selfplay.io import storage
from selfplay.io.run_files import AGENT_FILE, read_part, versions, weights_uri
from selfplay.io.sealed import load_newest_valid
from selfplay.nets import weights
from selfplay.nets.averaged import Averaged
from selfplay.nets.config import NetConfig
from selfplay.nets.inference import Evaluator
from selfplay.nets.policy_value import check_shapes
from selfplay.search import BatchedSearch, Evaluate, SearchConfig, SearchResult

Array = np.ndarray[Any, Any]

_AT_ONCE = 256


def describe(game: Game, net: NetConfig, search: SearchConfig, policy_id: str, images: int = 1) -> str:
    """The JSON of `agent.json`: what `Agent.load` needs besides weights.

    images: symmetric images of a position that its evaluation is averaged over, itself included; see `Averaged`.
    """
    portable = registry.pack(game.spec)
    return json.dumps(
        {
            "schema": SCHEMA,
            "policy_id": policy_id,
            "env": {"reference": portable.reference, "source": portable.text, "id": game.spec.id},
            "net": json.loads(net.to_json()),
            "search": {name: getattr(search, name) for name in SearchConfig.__dataclass_fields__},
            "images": images,
        },
        indent=2,
    )


class Agent:
    """A net, its game and a search. Not for use by several threads at once.

    spec, game: what it plays. version: of the net. policy_id: the run's series of nets.
    """

    def __init__(self, game: Game, evaluate: Evaluate, search: SearchConfig, version: int, policy_id: str) -> None:
        self.game = game
        self.spec = game.spec
        self.version = version
        self.policy_id = policy_id
        self._evaluate = evaluate
        self._config = search
        self._searches: dict[int, BatchedSearch] = {}

    @classmethod
    def load(cls, run_uri: str, version: int | None = None, threads: int = 1, trust: bool = False) -> Agent:
        """The newest agent of a run, or the one of `version`.

        A game that came as a file of its own is found if this process has loaded that file (`registry.find`); the
        source as kept in the run is run only if you `trust` it, and no path in the folder is followed. Where the newest
        weights are damaged, the version before is taken, with a warning. Raises `UserError` where there is no run, no
        such version, a newer schema, or a description that fits no game, `Damaged` where nothing is whole.
        """
        run_uri = storage.normalise(run_uri)
        try:
            about, damaged = read_part(run_uri, AGENT_FILE, "agent", SCHEMA)
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{run_uri} holds no run; give the folder that `selfplay run` wrote to (--out)") from None
        place = storage.join(run_uri, AGENT_FILE)
        if about.get("kind") == "reasoning":
            raise UserError(f"{run_uri} is a reasoning run: its policy is the Hugging Face model in {run_uri}/policy")
        described = agent_file.parse(about, place)
        game = load(described.spec(trust))
        agent_file.check_fits(described, game, place)
        found = versions(run_uri)
        if not found:
            raise UserError(f"{run_uri} has no weights yet; let it run until the first net is published")
        if version is not None and version not in found:
            raise UserError(f"{run_uri} keeps no version {version}; it has {', '.join(map(str, found))}")
        wanted = [version] if version is not None else found[::-1]
        places = {weights_uri(run_uri, one): one for one in wanted}
        whole = load_newest_valid(places, weights.load)
        if whole.value is None or whole.place is None:
            raise whole.damaged[0]
        tensors, chosen = whole.value[0], places[whole.place]
        told = [(one, "the record of the run's last start") for one in damaged]
        told += [(one, f"version {chosen}") for one in whole.damaged]
        for one, instead in told:
            warnings.warn(f"{one}; {instead} is used instead", stacklevel=2)
        try:
            check_shapes(described.net, tensors)  # before a net is built that may be far larger than its weights
            evaluator = Evaluator(described.net, device="cpu", threads=threads)
            evaluator.load(tensors)
        except ValueError as error:
            raise UserError(f"the weights of {run_uri} do not fit its net: {error}") from None
        symmetries = game.encoder.symmetries()[: described.images - 1]
        evaluate = Averaged(evaluator, symmetries) if symmetries else evaluator
        return cls(game, evaluate, described.search, chosen, described.policy_id)

    def act(self, state: pyspiel.State, simulations: int = 64) -> int:
        """The move that the search prefers, without noise; `simulations=0`: the likeliest legal move of the net."""
        return self.search(state, simulations).action

    def act_many(self, states: list[pyspiel.State], simulations: int = 64) -> list[int]:
        """`act` for many states, searched side by side."""
        return [result.action for result in self.search_many(states, simulations)]

    def search(self, state: pyspiel.State, simulations: int = 64) -> SearchResult:
        """What a search from `state` finds."""
        return self.search_many([state], simulations)[0]

    def search_many(self, states: list[pyspiel.State], simulations: int = 64) -> list[SearchResult]:
        """`search` for many states, side by side."""
        if simulations < 0:
            raise ValueError(f"simulations must be 0 or more, got {simulations}")
        results: list[SearchResult] = []
        for first in range(0, len(states), _AT_ONCE):
            results += self._together(states[first : first + _AT_ONCE], simulations)
        return results

    def _together(self, states: list[pyspiel.State], simulations: int) -> list[SearchResult]:
        slots = 1
        while slots < len(states):
            slots *= 2
        search = self._searches.get(slots)
        if search is None or search.max_simulations < simulations:
            search = BatchedSearch(self.game, self._evaluate, self._config, slots, max(simulations, 64))
            self._searches[slots] = search
        for slot, state in enumerate(states):
            search.start(slot, state.clone(), simulations)
        left = len(states)
        while left:
            left -= len(search.tick())
        return [search.result(slot) for slot in range(len(states))]

    def evaluate(self, state: pyspiel.State) -> tuple[Array, float]:
        """Without search: policy `[A]` float32 (zero on illegal actions, sums to one), and the expected return.

        Averaged over symmetric images of the position where the run says so, see `describe`. The value is in the
        game's utility units, from the point of view of the seat to act.
        """
        result = self.search(state, 0)
        policy = np.zeros(self.game.num_actions, np.float32)
        policy[result.actions] = result.prior
        return policy, result.raw_value * self.game.value_scale
