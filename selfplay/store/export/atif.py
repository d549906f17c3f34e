"""Trajectories in ATIF, the agent trajectory interchange format: `<run_id>/<slot>-<epoch>-<number>.json`.

A step is a turn, in order; `extra.turn` and `extra.parent` tell of branches. What a tool said is an observation of the
step that called it; where no step did, a step of the system. Failed episodes are told like others: `extra.status`.
`metrics.prompt_token_ids` are the whole context of the step, as the policy was given it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from selfplay.episode import Episode
from selfplay.store.export.chat_turns import broken
from selfplay.store.table.rows import episodes_of
from selfplay.store.table.table import is_name

if TYPE_CHECKING:
    from selfplay.store.export.job import Job

SCHEMA_VERSION = "ATIF-v1.8"
_SOURCES = {"system": "system", "user": "user", "assistant": "agent", "tool": "system", "chance": "system"}
#: Episodes that are unpacked at once: tokens are large as objects.
_AT_ONCE = 16
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)

Turns = Sequence[Mapping[str, Any]]


def write(job: Job) -> None:
    """No options: archived is enough, trainable or not."""
    from atif import Trajectory
    from pydantic import ValidationError

    for batch in job.batches():
        for start in range(0, batch.num_rows, _AT_ONCE):
            part = batch.slice(start, _AT_ONCE)
            for episode, digest in zip(episodes_of(part), part.column("content_digest").to_pylist(), strict=True):
                if isinstance(episode, str):
                    job.leave_out(episode)
                    continue
                assert episode.reasoning is not None
                if not is_name(episode.provenance.run_id) or not is_name(episode.slot):
                    job.leave_out("its run id or slot cannot be the name of a file")
                    continue
                wrong = broken([(turn["role"], turn["parent"]) for turn in episode.reasoning["turns"] or ()])
                if wrong is not None:
                    job.leave_out(wrong)
                    continue
                document = _plain(trajectory(episode, digest))
                try:
                    Trajectory.model_validate(document)
                except ValidationError as error:
                    job.leave_out(f"no valid ATIF: {error.errors()[0]['msg']}")
                    continue
                name = f"{episode.provenance.run_id}/{episode.slot}-{episode.epoch}-{episode.number}.json"
                path = job.folder / name
                path.parent.mkdir(exist_ok=True)
                text = json.dumps(document, ensure_ascii=False, allow_nan=False)
                path.write_text(text + "\n", encoding="utf-8", newline="\n")
                job.row(name, 0, episode.episode_id)


def trajectory(episode: Episode, content_digest: str) -> dict[str, Any]:
    """The document of one episode. Values that are None are not in it."""
    assert episode.reasoning is not None
    turns: Turns = episode.reasoning["turns"] or ()
    steps = _steps(episode, turns)
    models = sorted({f"{span.policy_id}@{span.version}" for span in episode.policy_spans})
    metrics = [step["metrics"] for step in steps if "metrics" in step]
    verdicts = [dict(verdict) for verdict in episode.verdicts or ()]
    return _known(
        schema_version=SCHEMA_VERSION,
        session_id=episode.provenance.run_id,
        trajectory_id=episode.episode_id,
        agent=_known(
            name="selfplay-factory",
            version=episode.provenance.package_version,
            model_name=models[0] if len(models) == 1 else None,
        ),
        steps=steps,
        final_metrics=_known(
            total_prompt_tokens=sum(one["prompt_tokens"] for one in metrics),
            total_completion_tokens=sum(one["completion_tokens"] for one in metrics),
            total_steps=len(steps),
            extra={"verdicts": [{key: one[key] for key in ("seat", "state", "reward")} for one in verdicts]},
        ),
        extra=_extra(episode, content_digest, verdicts),
    )


def _extra(episode: Episode, content_digest: str, verdicts: list[dict[str, Any]]) -> dict[str, Any]:
    made, reasoning = episode.provenance, episode.reasoning
    assert reasoning is not None
    return _known(
        content_digest=content_digest,
        status=episode.status,
        trainable=episode.trainable,
        error=None if episode.error is None else dict(zip(("kind", "message"), episode.error, strict=True)),
        origin=made.origin,
        parents=[{"episode_id": parent, "relation": relation} for parent, relation in episode.parents] or None,
        licence=made.licence,
        env_id=made.env_id,
        env_version=made.env_version,
        ruleset_digest=made.ruleset_digest,
        config_digest=made.config_digest,
        code_commit=made.code_commit,
        seed=episode.seed,
        started_at=_time(episode.started_at),
        wall_ms=episode.wall_ms,
        seats=episode.seats,
        returns=None if episode.returns is None else list(episode.returns),
        policy_spans=[
            {name: getattr(span, name) for name in span.__dataclass_fields__} for span in episode.policy_spans
        ],
        verdicts=verdicts if episode.verdicts is not None else None,
        reasoning=_known(**{name: value for name, value in reasoning.items() if name != "turns"}),
    )


def _steps(episode: Episode, turns: Turns) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = []
    called: dict[int, dict[str, Any]] = {}  # turn -> the step of the assistant that a tool after it answers
    contexts: list[list[int]] = []
    for index, turn in enumerate(turns):
        parent = turn["parent"]
        before = [] if parent is None else contexts[parent] + list(turns[parent]["token_ids"] or ())
        contexts.append(before + list(turn["suffix_ids"] or ()))
        if turn["role"] == "tool" and parent in called:
            called[index] = called[parent]
            results = called[parent].setdefault("observation", {"results": []})["results"]
            results.append({"content": turn["text"] or "", "extra": _about(index, turn)})
            continue
        step: dict[str, Any] = {"step_id": len(steps) + 1}
        if not steps:
            step["timestamp"] = _time(episode.started_at)
        step |= {"source": _SOURCES[turn["role"]], "message": turn["text"] or ""}
        if turn["role"] == "assistant":
            step |= _known(model_name=_model(episode, turn["seat"], index))
            step |= {"metrics": _metrics(turn, contexts[index]), "extra": _place(index, turn)}
            called[index] = step
        else:
            step["extra"] = _about(index, turn)
        steps.append(step)
    return steps


def _metrics(turn: Mapping[str, Any], context: list[int]) -> dict[str, Any]:
    tokens, logprobs = list(turn["token_ids"] or ()), turn["logprobs"]
    whole = logprobs is not None and len(logprobs) == len(tokens) and all(map(_finite, logprobs))
    return _known(
        prompt_tokens=len(context),
        completion_tokens=len(tokens),
        prompt_token_ids=context,
        completion_token_ids=tokens,
        logprobs=logprobs if whole else None,
        extra=_known(loss_mask=turn["loss_mask"], logprobs=None if whole else logprobs),
    )


def _place(index: int, turn: Mapping[str, Any]) -> dict[str, Any]:
    return _known(
        turn=index,
        parent=turn["parent"],
        seat=turn["seat"],
        role=turn["role"],
        finish_reason=turn["finish_reason"],
        has_text=False if turn["text"] is None else None,
    )


def _about(index: int, turn: Mapping[str, Any]) -> dict[str, Any]:
    """As `_place`, with the tokens: the format has fields for those of agents only."""
    names = ("suffix_ids", "token_ids", "logprobs", "loss_mask")
    return _place(index, turn) | _known(**{name: turn[name] for name in names})


def _model(episode: Episode, seat: int, index: int) -> str | None:
    for span in episode.policy_spans:
        if span.seat == seat and span.first_step <= index <= span.last_step:
            return f"{span.policy_id}@{span.version}"
    return None


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _time(microseconds: int) -> str:
    return (_BEGINNING + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _plain(value: Any) -> Any:
    """JSON has no infinity and no NaN: they become their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value
