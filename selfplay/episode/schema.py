"""The schema of the corpus, in one place: one row an episode, its steps nested, the same table for every kind.

Signed integers, floats, strings, booleans, structs and lists only: what Delta Lake can hold. Every field carries its
meaning as `comment` metadata. A new field is added nullable and raises `SCHEMA_VERSION`; none ever changes meaning.

Search floats are stored as integers in units of 1/32767: priors of 1, values of `game.value_scale` (the largest
absolute utility of the game). The error is at most half a unit: 1.6e-5 of a prior, 1.6e-5 * value_scale of a value.
Visit counts are exact. Every value is an expected return in the game's own utility units from the point of view of
the seat to act, unless its comment says otherwise.
"""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 2
#: Columns that the first version did not have, and the version that added each. A table, or a file, of an earlier
#: version lacks them; its rows read as null there.
ADDED = {"previous_digest": 2}

#: Integer units of a stored prior (of 1) or value (of value_scale).
UNITS = 32767

#: Seats that are none: in `steps.seat`, a chance node and a node where all seats move at once.
CHANCE_SEAT = -1
SIMULTANEOUS = -2
#: The role of a turn of chance, by seat -1: the choice of the problem, as JSON with its probability.
CHANCE_ROLE = "chance"

KINDS = ("game", "reasoning", "control")
STATUSES = ("ok", "truncated", "aborted", "timeout", "error", "invalid")
ENDINGS = ("terminal", "ply_limit", "resignation", "aborted")
RELATIONS = ("fork", "reanalysis", "retry", "critique")
PARTITION_BY = ["kind", "run_id"]

#: Policies without weights of their own: uniformly random moves, and openings of random moves that are the evenest of
#: several lines by the net of the span's version.
UNIFORM, EVENEST = "random", "random-evenest"


def _field(name: str, kind: pa.DataType, comment: str) -> pa.Field:
    return pa.field(name, kind, metadata={"comment": comment})


def _list(kind: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", kind))


CANDIDATE = pa.struct(
    [
        _field("action", pa.int32(), "a legal action; ascending within a step"),
        _field("visits", pa.int32(), "simulations that went through it, unreduced"),
        _field("prior", pa.int16(), "the net's probability before any noise, in 1/32767"),
        _field("q", pa.int16(), "mean value, in value_scale/32767, seat to act; null if never visited"),
    ]
)

STEP = pa.struct(
    [
        _field("seat", pa.int8(), "who acted; -1 chance, -2 all seats at once"),
        _field("action", pa.int32(), "the action or chance outcome; -1 if all seats moved at once"),
        _field("joint", _list(pa.int32()), "one action a seat where all moved at once, else null"),
        _field("source", pa.string(), "who chose: search, random, opening, chance, human, solver, ..."),
        _field("simulations", pa.int32(), "simulations of the search at this step; 0 without a search"),
        _field("full_search", pa.bool_(), "a full search (its visits are a policy target), not a cheap one"),
        _field("root_value", pa.int16(), "value after the search, in value_scale/32767, seat to act; null without one"),
        _field("raw_value", pa.int16(), "value by the net alone, in value_scale/32767, seat to act; null without one"),
        _field("surprise", pa.float32(), "KL(policy target || prior) in nats; null without a search"),
        _field("seat_values", _list(pa.float32()), "expected returns, utility units, one a seat, own view; else null"),
        _field("candidates", _list(CANDIDATE), "all legal actions and what the search saw in them; empty without one"),
    ]
)

GAME = pa.struct(
    [
        _field("game_string", pa.string(), "the full OpenSpiel game string"),
        _field("value_scale", pa.float64(), "largest absolute utility, in utility units: the unit of stored values"),
        _field("replay_digest", pa.string(), "sha256 (hex) of what the rules said along the game"),
        _field("ended_by", pa.string(), "terminal, ply_limit, resignation or aborted"),
        _field("resigned_seat", pa.int8(), "the seat that resigned, else null"),
        _field("would_have_resigned_seat", pa.int8(), "first seat below the threshold in a game played on, else null"),
        _field("played_on_after_resignation", pa.bool_(), "resignation was off, to measure its false positives"),
        _field("steps", _list(STEP), "everything that was done, chance and openings included, in order"),
    ]
)

TURN = pa.struct(
    [
        _field("seat", pa.int8(), "who wrote the turn, or was told it; -1 chance"),
        _field("role", pa.string(), "system, user, assistant or tool; chance: how the problem was chosen, JSON"),
        _field("parent", pa.int32(), "index of the turn whose tokens this turn's context begins with; null: none"),
        _field("suffix_ids", _list(pa.int32()), "tokens of the context after the parent's"),
        _field("token_ids", _list(pa.int32()), "tokens of the turn, as sampled; never re-tokenised"),
        _field("logprobs", _list(pa.float32()), "log-probability (nats) of each token as sampled; null if not sampled"),
        _field("loss_mask", _list(pa.bool_()), "tokens that a learner may train on"),
        _field("finish_reason", pa.string(), "stop, length, abort, ..."),
        _field("text", pa.string(), "the turn as text"),
    ]
)

REASONING = pa.struct(
    [
        _field("problem_seed", pa.int64(), "with env id, version and difficulty: rebuilds the problem"),
        _field("difficulty", pa.float64(), "as the environment defines it, no unit"),
        _field("problem_digest", pa.string(), "sha256 (hex) of the problem as rendered"),
        _field("group_id", pa.string(), "samples of one problem drawn together"),
        _field("sample_index", pa.int32(), "place in the group, from 0"),
        _field("tokenizer", pa.string(), "id and digest of the tokenizer"),
        _field("temperature", pa.float32(), "of sampling; logprobs include it"),
        _field("top_k", pa.int32(), "of sampling; null: off"),
        _field("top_p", pa.float32(), "of sampling; null: off"),
        _field("answer", pa.string(), "what the verifier read as the answer"),
        _field("turns", _list(TURN), "all turns of all seats, in order"),
    ]
)

CONTROL = pa.struct(
    [
        _field("observation_shape", _list(pa.int32()), "of one observation"),
        _field("action_shape", _list(pa.int32()), "of one action; empty: a discrete action"),
        _field("observations", _list(pa.float32()), "n_steps + 1 observations, flat, in the environment's units"),
        _field("actions", _list(pa.float64()), "n_steps actions, flat; discrete actions as whole numbers"),
        _field("rewards", _list(pa.float64()), "one a step, in the environment's reward units"),
        _field("logprobs", _list(pa.float32()), "log-probability (nats) of each action as sampled; null if unknown"),
    ]
)

CRITERION = pa.struct(
    [
        _field("criterion", pa.string(), "what was judged: answer, format, ..."),
        _field("verifier_id", pa.string(), "who judged"),
        _field("verifier_version", pa.string(), "its version"),
        _field("score", pa.float64(), "finite, in [low, high], more is better for the seat; null if unverifiable"),
        _field("low", pa.float64(), "smallest possible score, in the verifier's units"),
        _field("high", pa.float64(), "largest possible score, in the verifier's units"),
        _field("reason", pa.string(), "why"),
    ]
)

VERDICT = pa.struct(
    [
        _field("seat", pa.int8(), "whom it is about"),
        _field("state", pa.string(), "accepted, rejected or unverifiable"),
        _field("reward", pa.float64(), "for that seat, in the verifier's units; null if unverifiable"),
        _field("error", pa.string(), "why it is unverifiable, else null"),
        _field("criteria", _list(CRITERION), "one row a criterion"),
    ]
)

SPAN = pa.struct(
    [
        _field("seat", pa.int8(), "whose steps"),
        _field("first_step", pa.int32(), "index of the first step, from 0"),
        _field("last_step", pa.int32(), "index of the last step, inclusive"),
        _field("policy_id", pa.string(), "which policy: the run's net, random, random-evenest, mcts-100, ..."),
        _field("version", pa.int64(), "its version; 0 before any training"),
        _field("digest", pa.string(), "sha256 (hex) of its weights; null if it has none"),
    ]
)

PARENT = pa.struct(
    [
        _field("episode_id", pa.string(), "the earlier episode"),
        _field("relation", pa.string(), "fork, reanalysis, retry or critique"),
    ]
)

ERROR = pa.struct([_field("kind", pa.string(), "where it failed"), _field("message", pa.string(), "what was said")])

#: One row of the corpus. `content_digest` is the sha256 over all other columns (see `selfplay.episode.digest`).
#: Through `previous_digest` it covers everything that its writer sealed before: the episodes of a writer are a chain.
EPISODES = pa.schema(
    [
        _field("episode_id", pa.string(), "run_id/slot/epoch/number: names this content for ever"),
        _field("kind", pa.string(), "game, reasoning or control: which payload is there"),
        _field("run_id", pa.string(), "the run that made it"),
        _field("schema_version", pa.int32(), "of this row"),
        _field("content_digest", pa.string(), "sha256 (hex) over all other columns of this row"),
        _field("slot", pa.string(), "the writer's place in the run"),
        _field("epoch", pa.int64(), "incarnation of the writer; a lower one is fenced"),
        _field("number", pa.int64(), "seal number within slot and epoch, from 0"),
        _field("status", pa.string(), "ok, truncated, aborted, timeout, error or invalid"),
        _field("trainable", pa.bool_(), "may be learned from; archived is not trainable"),
        _field("error", ERROR, "what went wrong, else null"),
        _field("origin", pa.string(), "self_play, cot_rl, human, solver, random, ..."),
        _field("parents", _list(PARENT), "episodes that this one was made from; empty: none"),
        _field("licence", pa.string(), "SPDX id"),
        _field("env_id", pa.string(), "environment, version included: connect_four-v0"),
        _field("env_version", pa.int32(), "the version in env_id"),
        _field("ruleset_digest", pa.string(), "sha256 (hex) of the environment's golden playthrough and source"),
        _field("seed", pa.int64(), "seed of the episode's own random generator"),
        _field("code_commit", pa.string(), "git commit of the code; null outside a clone"),
        _field("config_digest", pa.string(), "sha256 (hex) of the resolved configuration"),
        _field("package_version", pa.string(), "of selfplay-factory"),
        _field("host", pa.string(), "machine that played it"),
        _field("started_at", pa.timestamp("us", tz="UTC"), "when it began, UTC, microseconds"),
        _field("wall_ms", pa.int64(), "how long it took, milliseconds"),
        _field("seats", pa.int32(), "number of seats"),
        _field("n_steps", pa.int32(), "steps (game, control) or turns (reasoning)"),
        _field("returns", _list(pa.float64()), "one a seat, utility units, own point of view; null: no outcome"),
        _field("policy_spans", _list(SPAN), "which policy made which steps"),
        _field("verdicts", _list(VERDICT), "judgements of verifiers; null where the rules decide"),
        _field("game", GAME, "payload of kind game, else null"),
        _field("reasoning", REASONING, "payload of kind reasoning, else null"),
        _field("control", CONTROL, "payload of kind control, else null"),
        _field(
            "previous_digest",
            pa.string(),
            "content_digest of the episode that the same writer (run, slot, epoch) sealed before; null for its first, "
            "and in rows of schema version 1",
        ),
    ],
    metadata={"schema_version": str(SCHEMA_VERSION)},
)
