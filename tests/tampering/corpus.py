"""A small honest corpus of every kind, as the factory's own parts make it, without Ray.

Runs: `gumbel` and `puct` (games, with openings, cheap searches, two versions of the net, cut and aborted games),
`words` (sampled groups, a solver's answers, an evaluation) and `walks` (a control environment).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import selfplay
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.environments.playthrough import ruleset_digest
from selfplay.environments.task import Side, Task
from selfplay.environments.task import ruleset_digest as task_digest
from selfplay.episode import EPISODES, Episode, Provenance, to_batch
from selfplay.nets.language import fresh
from selfplay.nets.language.config import PolicySpec, small
from selfplay.nets.language.tokenizer import of_characters
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.rollout import Sampling
from selfplay.rollout.continuous import ContinuousEngine
from selfplay.rollout.dialogue import Dialogues, Speaker
from selfplay.rollout.recorder import Assignment, Recorder
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.table.table import SIDE_TABLES
from selfplay.store.verify.spelling import kept
from trainers.alphazero.config import RunConfig
from trainers.reasoning.config import ReasoningConfig
from trainers.run.settings import Experiment

EPOCH = 1000
_TOKENIZER = of_characters(map(chr, range(10, 127)))
_COMMIT = "c" * 40
#: Weights of version 1 and 2 of every policy.
DIGESTS = {1: "1" * 64, 2: "2" * 64}


@dataclass(frozen=True)
class Honest:
    """episodes: in the order of their numbers, writer by writer. tables: side table -> its rows.

    victims: name -> index of an episode.
    """

    episodes: list[Episode]
    batch: pa.RecordBatch
    tables: dict[str, list[dict[str, Any]]]
    victims: dict[str, int]

    def rows(self) -> list[dict[str, Any]]:
        """The episodes as plain values."""
        return list(self.batch.to_pylist())


def honest() -> Honest:
    """The corpus; the same every time, but for the clock."""
    torch.set_num_threads(1)
    started = datetime.now(UTC)
    gumbel, puct = _games("gumbel"), _games("puct")
    words, walks = _words(), _walks()
    episodes = [*gumbel, *puct, *words, *walks]
    tables = {name: list[dict[str, Any]]() for name in SIDE_TABLES}
    for one in (gumbel[0], puct[0], words[0], walks[0]):
        _describe(one, started, tables)
    first: dict[str, Callable[[Episode], bool]] = {
        "game": lambda e: e.status == "ok" and e.provenance.run_id == "gumbel" and e.number > 1 and e.n_steps > 6,
        "puct game": lambda e: e.status == "ok" and e.provenance.run_id == "puct" and e.n_steps > 6,
        "opened game": lambda e: e.game is not None and e.game.steps[0].source == "opening",
        "cut game": lambda e: e.game is not None and e.status == "truncated",
        "aborted game": lambda e: e.game is not None and e.status == "aborted",
        "dialogue": lambda e: e.provenance.origin == "cot_rl" and e.number > 1,
        "solved": lambda e: e.provenance.origin == "solver",
        "measured": lambda e: e.provenance.origin == "evaluation",
        "developed": lambda e: e.reasoning is not None and e.reasoning["group_id"][0] == "d",
        "walk": lambda e: e.control is not None,
    }
    digest, files = kept(_TOKENIZER.files) or ("", "")
    tables["tokenizers"].append({"digest": digest, "files": files, "added_at": started})
    victims = {name: next(i for i, one in enumerate(episodes) if fits(one)) for name, fits in first.items()}
    return Honest(episodes, to_batch(episodes), tables, victims)


def _config(run: str) -> Experiment:
    if run == "words":
        policy = {"layers": 1, "hidden": 16, "heads": 2, "context": 200}
        generation = {"group": 4, "max_tokens": 6, "top_p": 0.95}
        words = {"name": run, "task": {"id": "parity"}, "policy": policy, "generation": generation}
        return ReasoningConfig.model_validate(words)
    data = {
        "name": run,
        "env": {"id": "tic_tac_toe"},
        "search": {
            "simulations": 8,
            "cheap_simulations": 4,
            "full_fraction": 0.5,
            "algorithm": run if run == "puct" else "gumbel",
        },
        "selfplay": {"games": 6, "opening_fraction": 0.5, "opening_plies": 2, "ply_limit": 8},
    }
    return RunConfig.model_validate(data)


def _provenance(run: str, env: Any, ruleset: str, origin: str) -> Provenance:
    return Provenance(
        run, env.id, env.version, ruleset, _config(run).digest, selfplay.__version__, os.uname().nodename,
        env.licence, _COMMIT, origin,
    )  # fmt: skip


def _games(run: str) -> list[Episode]:
    spec, config = registry.find("tic_tac_toe"), _config(run)
    assert isinstance(config, RunConfig)
    game, c, s = load(spec), config.selfplay, config.search
    settings = PlaySettings(
        c.games, s.simulations, s.cheap_simulations, s.full_fraction, c.opening_fraction, c.opening_plies,
        ply_limit=c.ply_limit or 9,
    )  # fmt: skip
    seeds = np.random.Generator(np.random.PCG64(np.random.SeedSequence((config.run.seed, 0, EPOCH))))
    net = HashNet(game.num_actions, value_range=1.0)
    search = SearchConfig(algorithm=s.algorithm)
    provenance = _provenance(run, spec, ruleset_digest(spec), "self_play")
    one = Generator(game, net, search, settings, provenance, "p0000", EPOCH, 0, seeds)
    made = list[Episode]()
    for version, wanted in ((1, 8), (2, 16)):
        one.set_policy(Policy(run, version, DIGESTS[version]))
        made += one.play(lambda sealed, _, wanted=wanted: sealed >= wanted)
    return made + one.abort()


def _words() -> list[Episode]:
    spec = registry.find_task("parity")
    task = Task(spec)
    provenance = _provenance("words", spec, task_digest(task), "cot_rl")
    policy = PolicySpec(None, small(_TOKENIZER.size, 1, 16, 2, 200), dict(_TOKENIZER.files), 200)
    engine = ContinuousEngine(fresh(policy, seed=0), 8, 0)
    engine.version = 1
    keeper = Recorder(provenance, "r0000", EPOCH, task)
    speaker = Speaker(engine, _TOKENIZER, "words", DIGESTS[1], 200)
    level = spec.difficulties[0]
    tried = [task.pose(seed, level) for seed in range(1_000_000, 1_000_100)]
    sides: tuple[Side, ...] = ("training", "held_out", "development")
    posed, kept_back, between = ([one for one in tried if one.side == side][:6] for side in sides)
    solved = [(Assignment(one, f"w{i:06d}", 0), task.solution(one.problem)) for i, one in enumerate(posed[4:])]
    made = keeper.all_worked(solved, _TOKENIZER, None)
    groups = [Assignment(one, f"r000000-{i:04d}", k, 0.5) for i, one in enumerate(posed[:2]) for k in range(4)]
    made += Dialogues(keeper, {0: speaker}, Sampling(max_tokens=6, top_p=0.95)).hold(groups)
    quiet = replace(speaker, learns=False)
    held_out = [Assignment(one, f"h000001-{level:g}-{i:04d}", 0) for i, one in enumerate(kept_back[:2])]
    held_out += [Assignment(one, f"d000001-{level:g}-{i:04d}", 0) for i, one in enumerate(between[:2])]
    measured = Dialogues(keeper, {0: quiet}, Sampling(max_tokens=6, temperature=0.0)).hold(held_out)
    for one in measured:
        evaluation = replace(one.provenance, origin="evaluation")
        made.append(replace(one, provenance=evaluation, trainable=False))
    task.close()
    return made


def _walks() -> list[Episode]:
    control = {
        "observation_shape": [2], "action_shape": [], "observations": [0.0, 1.0, 0.5, 0.25, 0.5, 0.75],
        "actions": [1.0, 0.0], "rewards": [-1.0, 0.5], "logprobs": [-0.5, -0.25],
    }  # fmt: skip
    provenance = Provenance(
        "walks", "walk-v0", 0, "f" * 64, _config("walks").digest, selfplay.__version__, os.uname().nodename,
        "CC0-1.0", _COMMIT,
    )  # fmt: skip
    now = int(time.time() * 1e6)
    return [
        Episode(provenance, "c0000", EPOCH, n, "ok", True, 1, (-0.5,), n, now + 1000 * n, 1, control=control)
        for n in range(3)
    ]


def _describe(episode: Episode, started: datetime, tables: dict[str, list[dict[str, Any]]]) -> None:
    """The rows of the side tables that the office of a run enters."""
    p, config = episode.provenance, _config(episode.provenance.run_id)
    environment = {
        "env_id": p.env_id, "ruleset_digest": p.ruleset_digest,
        "game_string": episode.game and episode.game.game_string, "package": "selfplay-factory",
        "package_version": selfplay.__version__, "source_digest": None, "source": None, "licence": p.licence,
        "added_at": started,
    }  # fmt: skip
    if environment not in tables["environments"]:
        tables["environments"].append(environment)
    tables["runs"].append(
        {
            "run_id": p.run_id, "epoch": EPOCH // 1000, "started_at": started, "env_id": p.env_id,
            "config": config.to_json(), "config_digest": p.config_digest, "code_commit": p.code_commit,
            "package_version": p.package_version, "host": p.host, "run_uri": f"runs/{p.run_id}",
        }
    )  # fmt: skip
    for version, digest in DIGESTS.items():
        tables["policies"].append(
            {
                "policy_id": p.run_id, "version": version, "digest": digest, "run_id": p.run_id,
                "created_at": started, "parent_digest": DIGESTS.get(version - 1), "training_steps": version,
                "training_samples": version, "uri": f"runs/{p.run_id}/{version}", "net": json.dumps({}),
                "metrics": None,
            }
        )  # fmt: skip


def sealed(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """Plain rows as a batch, their content digests made anew."""
    from selfplay.episode import content_digests

    batch = pa.RecordBatch.from_pylist(rows, EPISODES)
    columns = {name: batch.column(name) for name in EPISODES.names}
    columns["content_digest"] = pa.array(content_digests(columns), pa.string())
    return pa.RecordBatch.from_arrays([columns[name] for name in EPISODES.names], schema=EPISODES)
