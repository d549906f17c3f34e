"""Episodes with the weights that they name: values, priors, searches and log-probabilities, computed again."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from selfplay.store.release.verifier.games import Rules
from selfplay.store.release.verifier.held import NOT_THERE, Weights
from selfplay.store.release.verifier.language import Answer, Speaker, answers_of
from selfplay.store.release.verifier.nets import Net, shown_to_net
from selfplay.store.release.verifier.rows import UNITS, Lie, Row, Unknown, parsed
from selfplay.store.release.verifier.searching import Draws, Place, opening_lies, playing_of, same_search, search

#: Of values in [-1, 1] and of probabilities; half a unit of storage is 1.6e-5.
EXACT, REDUCED, ROOM = 1e-4, 0.05, 8.0
#: So near are numbers that were not reduced; bfloat16 moves them `FARTHER` times as far.
TIGHT, FARTHER = 2.5e-5, 20
#: A search that comes out otherwise is made again so often, with numbers moved by up to these.
TRIES, MOVED = 12, (1e-6, 1e-5)
#: From this schema version on no search is of two nets.
ONE_NET_SINCE = 2
#: Tokens that wait for their model.
MOST_WAITING = 2**22
OTHERWISE = "the random numbers of its run were drawn otherwise than here, and its searches cannot be made again"
#: What a row or a table that is none makes of what is computed with it.
BROKEN = (TypeError, ValueError, LookupError, AttributeError, RuntimeError, OSError, ArithmeticError)


@dataclass(frozen=True)
class Decision:
    """A searched move. state: before it. noise: of its search, where `known`. tight: no number of its game is off."""

    row: Row
    ply: int
    step: Row
    state: Any
    known: bool
    noise: Any
    digest: str
    tight: bool = False


class Weighing:
    """Goes through rows, and holds what was found. searches: to make again, of decisions that `rng` draws."""

    def __init__(self, rules: Rules, weights: Weights, runs: list[Row], searches: int, rng: random.Random) -> None:
        self.rules, self.weights, self.searches, self.rng = rules, weights, searches, rng
        self.configs = {row["config_digest"]: parsed(row["config"]) for row in runs}
        self.playing = {digest: playing_of(config) for digest, config in self.configs.items()}
        self.decisions = self.tokens = self.made = self.repeated = self.seen = self.waiting_tokens = 0
        self.good, self.lies = set[str](), dict[str, str]()  # episodes that were weighed; what is false
        self.missing, self.seeded, self.again = Counter[str](), Counter[str](), Counter[str]()
        self.strange: dict[str, dict[str, str]] = {}  # run -> episode -> what its seed contradicts
        self.others: dict[str, dict[str, str]] = {}  # run -> episode -> which search comes out otherwise
        self.drawn: list[Decision] = []
        self.waiting: dict[str, list[Answer]] = {}

    def row(self, row: Row) -> None:
        """Weighs an episode. A dialogue waits for others of its model: `finish` weighs what is left."""
        name = str(row["episode_id"])
        try:
            if row["kind"] == "game":
                self.decisions += self.game(row)
                self.good.add(name)
            elif row["kind"] == "reasoning":
                self.dialogue(row)
            else:
                raise Unknown(f"episodes of kind {row['kind']} are not weighed")
        except Unknown as reason:
            self.missing[str(reason)] += 1
        except Lie as lie:
            self.lies[name] = str(lie)
        except BROKEN as error:
            self.lies[name] = f"the row cannot be weighed: {type(error).__name__}"

    def finish(self) -> None:
        """Weighs the dialogues that wait, makes the searches again, and judges what only many games show."""
        self.speak()
        for one in self.drawn:
            try:
                self.repeat(one)
            except Unknown as reason:
                self.missing[str(reason)] += 1
            except (Lie, *BROKEN) as error:
                said = str(error) if isinstance(error, Lie) else f"it cannot be made again: {type(error).__name__}"
                self.lies.setdefault(one.row["episode_id"], f"step {one.ply}: {said}")
        for run in {*self.strange, *self.others}:
            strange, others = self.strange.get(run, {}), self.others.get(run, {})
            if 2 * len(strange) > self.seeded[run] or 3 * len(others) > self.again[run]:
                self.missing[OTHERWISE] += len(strange.keys() | others.keys())
            else:
                self.lies = others | strange | self.lies
        self.good -= self.lies.keys()

    # games

    def game(self, row: Row) -> int:
        """How many decisions were computed again. Raises `Unknown` where none was."""
        asked, count = dict[str, list[Decision]](), 0
        for one in self.walked(row):
            asked.setdefault(one.digest, []).append(one)
        for digest, some in asked.items():
            net, judged = self.weights.find(digest), some[row["schema_version"] < ONE_NET_SINCE :]
            if not isinstance(net, Net):
                raise Unknown("its weights are a language model's")
            if judged:
                tight = decisions_lie(net, judged, self.weights.rows[digest]["version"])
                count += len(judged)
                for one in judged:
                    if one.known:
                        self.draw(one, tight)
        if not count:
            raise Unknown(NOT_THERE)
        return count

    def walked(self, row: Row) -> list[Decision]:
        """The searched moves of a game whose weights are there; notes what its seed contradicts."""
        game, playing, found, said = self.rules.find(row), self.playing.get(row["config_digest"]), [], None
        state, draws = game.new_initial_state(), None
        if playing is not None and row["origin"] == "self_play":
            draws = Draws(game, playing, row["seed"])
            self.seeded[row["run_id"]] += 1
            said = opening_lies(row, draws)
        for ply, step in enumerate(row["game"]["steps"]):
            legal = state.legal_actions()
            if step["seat"] != state.current_player() or step["action"] not in legal:
                raise Unknown("its moves are not those of its game: see verify_corpus.py")
            if step["source"] == "search" and [one["action"] for one in step["candidates"]] == legal:
                full, noise = (False, None) if draws is None or said else draws.noise(len(legal))
                if draws is not None and not said:
                    said = draws.contradicts(ply, step, full)
                span = next((one for one in row["policy_spans"] if one["seat"] == step["seat"]
                             and one["first_step"] <= ply <= one["last_step"] and one["digest"]), None)  # fmt: skip
                if span is not None and span["digest"] in self.weights.files:
                    known = draws is not None and not said
                    found.append(Decision(row, ply, step, state.clone(), known, noise, span["digest"]))
            state.apply_action(step["action"])
        if said:
            self.strange.setdefault(row["run_id"], {})[row["episode_id"]] = said
        return found

    def draw(self, one: Decision, tight: bool) -> None:
        """Keeps a decision, or not, so that in the end all were as likely to be kept."""
        self.seen += 1
        place = self.seen - 1 if self.seen <= self.searches else self.rng.randrange(self.seen)
        if place < self.searches:
            kept = Decision(**{**vars(one), "tight": tight})
            self.drawn[place : place + 1] = [kept]

    def repeat(self, one: Decision) -> None:
        """Makes a search again, if it can be known what comes of it."""
        net, how = self.weights.find(one.digest), self.playing[one.row["config_digest"]]
        assert isinstance(net, Net) and how is not None
        unit, gumbel = one.row["game"]["value_scale"], how["algorithm"] == "gumbel"
        if net.tower and not how["exact"] and not (one.tight and self.coarse(net, one)):
            raise Unknown("its net may have been computed in reduced arithmetic: its searches are not made again here")

        rng = np.random.default_rng(0)

        def tried(moved: float) -> tuple[Place, int]:
            """The search with all numbers of the net moved by up to so much."""

            def asked(state: Any) -> tuple[Any, float]:
                logits, values = net(shown_to_net(state, one.row["env_id"], net.shape)[None])
                return logits[0] + rng.uniform(-moved, moved, len(logits[0])), values[0] + rng.uniform(-moved, moved)

            return search(one.state, asked, unit, one.step["simulations"], one.noise, how)

        self.made += 1
        run, (root, edge) = one.row["run_id"], tried(0.0)
        as_recorded = same_search(one.step, root, edge, gumbel) or any(
            same_search(one.step, *tried(moved), gumbel) for moved in MOVED for _ in range(TRIES))  # fmt: skip
        self.repeated += as_recorded
        self.again[run] += as_recorded
        if not as_recorded:
            visits = [candidate["visits"] for candidate in one.step["candidates"]]
            said = f"step {one.ply}: its search, made again, has the visits {root.visits!s:.120} and plays "
            said += f"{root.actions[edge]}; recorded are {visits!s:.120} and {one.step['action']}"
            self.others.setdefault(run, {})[one.row["episode_id"]] = said

    def coarse(self, net: Net, one: Decision) -> bool:
        """Whether bfloat16 would have moved the numbers of a position far more than they are off."""
        x = shown_to_net(one.state, one.row["env_id"], net.shape)[None]
        (exact, value), (rough, rough_value) = net(x), net(x, True)
        moved = float(np.abs(priors_of(exact[0], one.step) - priors_of(rough[0], one.step)).max())
        return max(abs(float(value[0] - rough_value[0])), moved) >= FARTHER * TIGHT

    # dialogues

    def dialogue(self, row: Row) -> None:
        """Has the answers of a dialogue wait for their models. Raises `Unknown` where there are none."""
        config = self.configs.get(row["config_digest"]) or {}
        if isinstance(config.get("generation"), dict) and config["generation"].get("engine") == "vllm":
            raise Unknown("it was generated by vLLM, whose arithmetic was never compared with ours")
        found = list(answers_of(row))
        if not any(digest in self.weights.files for digest, _ in found):
            raise Unknown(NOT_THERE)
        for digest, one in found:
            if digest in self.weights.files:
                self.waiting.setdefault(digest, []).append(one)
                self.waiting_tokens += len(one.ids)
        if self.waiting_tokens > MOST_WAITING:
            self.speak()

    def speak(self) -> None:
        """Weighs all answers that wait, model by model."""
        for digest, answers in self.waiting.items():
            names = {one.episode for one in answers}
            try:
                model = self.weights.find(digest)
                if not isinstance(model, Speaker):
                    raise Unknown("its weights are a game's")
                for one, wrong, here in model.apart(answers):
                    self.tokens += len(one.logprobs)
                    if wrong is None:
                        self.good.add(one.episode)
                        continue
                    said = f"turn {one.turn}: token {wrong} has the log-probability {one.logprobs[wrong]:.4f}, and by"
                    self.lies.setdefault(one.episode, f"{said} version {one.version} {here:.4f}")
            except Unknown as reason:
                self.missing[str(reason)] += len(names)
            except (Lie, *BROKEN) as error:
                said = str(error) if isinstance(error, Lie) else f"it cannot be weighed: {type(error).__name__}"
                self.lies |= dict.fromkeys(names - self.lies.keys(), said)
        self.waiting, self.waiting_tokens = {}, 0


def decisions_lie(net: Net, some: list[Decision], version: Any) -> bool:
    """Whether all numbers of some decisions of a game are those of float32, as near as storage lets them be."""
    x = np.stack([shown_to_net(one.state, one.row["env_id"], net.shape) for one in some])
    logits, values = net(x)
    rough, tight = None, True
    for i, one in enumerate(some):
        priors = priors_of(logits[i], one.step)
        recorded = np.array([of["prior"] for of in one.step["candidates"]]) / UNITS
        raw = np.nan if one.step["raw_value"] is None else one.step["raw_value"] / UNITS
        apart, off = abs(values[i] - raw), float(np.abs(priors - recorded).max())
        tight = tight and bool(apart <= TIGHT and off <= TIGHT)
        if apart <= EXACT and off <= EXACT:
            continue
        rough = rough or net(x, True)
        moved = max(abs(rough[1] - values))
        shifted = max(float(np.abs(priors_of(rough[0][j], of.step) - priors_of(logits[j], of.step)).max())
                      for j, of in enumerate(some))  # fmt: skip
        if not apart <= max(REDUCED, ROOM * moved):
            raise Lie(
                f"step {one.ply}: its raw value is {raw:.4f} of its scale, and version {version}'s {values[i]:.4f}"
            )
        if not off <= max(REDUCED, ROOM * shifted):
            raise Lie(f"step {one.ply}: a prior is {off:.4f} apart from version {version}'s")
    return tight and len(some) > 2


def priors_of(logits: Any, step: Row) -> Any:
    chosen = logits[[one["action"] for one in step["candidates"]]]
    parts = np.exp(chosen - chosen.max())
    return parts / parts.sum()
