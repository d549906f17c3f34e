"""Texts of models and strangers on a terminal, and an archived dialogue as `selfplay corpus show` prints it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.cli.untrusted import compact, elided, one_line, tame
from selfplay.episode import CHANCE_SEAT, Episode, PolicySpan, Provenance, to_batch


def safe(text: str) -> bool:
    return all(character == "\n" or character.isprintable() for character in text)


ANY_TEXT = st.text(st.characters(codec=None), max_size=200) | st.sampled_from(["e\u0301\u0301\u0301", "", "\n" * 50])


@given(ANY_TEXT, st.integers(1, 300))
def test_tamed_text_moves_no_cursor(text: str, most: int) -> None:
    assert safe(tame(text)) and safe(compact(text, most)) and "\n\n\n" not in compact(text, most)
    assert "\n" not in one_line(text, most) and len(one_line(text, most)) <= most
    tame(text).encode()
    assert len(elided(text, most)) <= max(len(text), most) + 40
    plain = "".join(character for character in text if character.isascii() and character.isprintable())
    assert tame(plain) == plain


def test_what_taming_shows() -> None:
    assert tame("a\x1b[31mb\tc\r\nd\re\x00\x7f") == "a␛[31mb    c\nd␍e␀␡"
    assert tame("x\u202ey\u200bz\u00a0\ud800\u2028") == "x�y�z ��"
    assert tame("a" + "\u0301" * 50) == "a\u0301\u0301" and tame("é 数 🤖") == "é 数 🤖"
    assert elided("a" * 30 + "b" * 30, 10) == "aaaaa […50 characters…] bbbbb"


def turn(role: str, text: str | None, seat: int = 0, tokens: int = 0) -> dict[str, Any]:
    return {
        "seat": seat, "role": role, "parent": None, "suffix_ids": [], "token_ids": list(range(tokens)),
        "logprobs": [-0.25] * tokens if tokens else None, "loss_mask": [True] * tokens,
        "finish_reason": "stop" if tokens else None, "text": text,
    }  # fmt: skip


def shown(uri: str, number: int, state: str, chance: str | None) -> str:
    failed = state == "unverifiable"
    criterion = {
        "criterion": "answer", "verifier_id": "parity-v0", "verifier_version": "0", "low": 0.0, "high": 1.0,
        "score": None if failed else float(state == "accepted"), "reason": "it is [odd]",
    }  # fmt: skip
    judged = {"seat": 0, "state": state, "reward": criterion["score"], "error": "it hung" if failed else None}
    turns = [] if chance is None else [turn("chance", chance, CHANCE_SEAT)]
    turns += [turn("user", "Is 1 0 1 odd?"), turn("assistant", "no \x1b[2J[red]1 0 1[/red]", tokens=7)]
    reasoning = {
        "problem_seed": 5, "difficulty": 4.0, "problem_digest": "f" * 64, "group_id": "g7", "sample_index": 2,
        "tokenizer": "bytes", "temperature": 1.0, "top_k": None, "top_p": None, "answer": "4", "turns": turns,
    }  # fmt: skip
    episode = Episode(
        provenance=Provenance("run", "parity-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0", origin="cot_rl"),
        slot="a", epoch=1000, number=number, status="ok", trainable=True, seats=1, returns=None, seed=5, wall_ms=1,
        started_at=1_760_000_000_000_000, policy_spans=(PolicySpan(0, 1, 1, "run", 3, "c" * 64),), reasoning=reasoning,
        verdicts=({**judged, "criteria": [criterion]},),
    )  # fmt: skip
    committer = store.Committer(uri, "run", 1)
    committer.register("a")
    committer.commit([store.write_block(uri, to_batch([episode]), "a", 1000, number)])
    done = CliRunner().invoke(app, ["show", "latest", uri])
    assert done.exit_code == 0, done.output
    return done.output


def test_an_episode_is_shown_turn_by_turn(tmp_path: Any) -> None:
    text = shown(str(tmp_path / "a"), 0, "rejected", '{"difficulty": 4.0, "probability": 0.125}')
    for part in ("problem 5 of level 4, drawn with probability 0.125\nsample 2 of group g7; origin cot_rl\n",
                 "1. seat 0, user", "Is 1 0 1 odd?", "2. seat 0, assistant  7 tokens, stop, -0.25 nats a token",
                 "no ␛[2J[red]1 0 1[/red]", "seat 0: rejected, reward 0", "answer 0 of 0 to 1: it is [odd]",
                 "parity-v0 version 0", "run version 3"):  # fmt: skip
        assert part in text, part
    assert "\x1b" not in text and "chance" not in text
    text = shown(str(tmp_path / "b"), 0, "unverifiable", None)
    assert "seat 0: unverifiable: it hung" in text and "answer no score" in text and "drawn" not in text
    assert "cannot be read" in shown(str(tmp_path / "c"), 0, "accepted", "[1")
