"""Policies behind HTTP: a real server on loopback that answers well, slowly, badly, or not at all."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

pytest.importorskip("torch")

from selfplay.environments import registry  # noqa: E402
from selfplay.environments.task import Task, ruleset_digest  # noqa: E402
from selfplay.episode import Episode, Provenance, to_batch  # noqa: E402
from selfplay.errors import UserError  # noqa: E402
from selfplay.nets.language.tokenizer import of_characters  # noqa: E402
from selfplay.rollout import Request, Sampling  # noqa: E402
from selfplay.rollout.dialogue import Assignment, Dialogues, Recorder, Speaker  # noqa: E402
from selfplay.rollout.endpoint import Endpoint, EndpointEngine  # noqa: E402
from selfplay.rollout.engine import answers  # noqa: E402
from selfplay.store.corpus.tokens import sequences_from  # noqa: E402
from selfplay.store.verify.verify import Rules, verify_episode  # noqa: E402

TOKENIZER = of_characters(map(chr, range(10, 127)))
SECRET = "sk-do-not-tell"
#: What a server does with the n-th request (from 0) and its body: (status, headers, bytes), or None to cut it off.
Reply = Callable[[int, dict[str, Any]], tuple[int, dict[str, str], bytes] | None]


def completion(text: str, **more: Any) -> tuple[int, dict[str, str], bytes]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} | more
    return 200, {}, json.dumps({"object": "chat.completion", "choices": [choice]}).encode()


def echo(n: int, body: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    return completion("<" + body["messages"][-1]["content"] + ">")


class Server:
    """Answers at `url`; `seen` are (path, headers, body), `most` the most requests that were there at once."""

    def __init__(self, reply: Reply) -> None:
        self.seen: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.now = self.most = 0
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    n = len(server.seen)
                    server.seen.append((self.path, dict(self.headers), body))
                    server.now += 1
                    server.most = max(server.most, server.now)
                try:
                    told = reply(n, body)
                finally:
                    with lock:
                        server.now -= 1
                if told is None:
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                status, headers, data = told
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(data))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # whoever asked has gone
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Reply], Server]]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("A_KEY", SECRET)
    servers: list[Server] = []

    def make(reply: Reply) -> Server:
        servers.append(Server(reply))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def engine(server: Server, **changes: Any) -> EndpointEngine:
    settings = {"key_variable": "A_KEY", "timeout_s": 10.0, "attempts": 4, "backoff_s": 0.01, **changes}
    return EndpointEngine(Endpoint(server.url, "a-model", **settings), TOKENIZER)


def ask(key: int, text: str = "", sampling: Sampling | None = None) -> Request:
    return Request(key, (2,), sampling or Sampling(), (("system", "short"), ("user", text or f"{key}?")))


def test_answers_are_recorded_with_the_tokens_of_our_tokenizer(serve: Any) -> None:
    logprobs = {"content": [{"token": "<4", "logprob": -0.25}, {"token": "2>", "logprob": -1.5}]}
    server = serve(lambda n, body: completion("<42>", logprobs=logprobs))
    sampling = Sampling(0.5, top_k=7, top_p=0.9, max_tokens=33, stop=("#",))
    (one,) = answers(engine(server, logprobs=True), [ask(3, "6*7=", sampling)])
    assert (one.key, one.text, one.finish_reason, one.error, one.logprobs) == (3, "<42>", "stop", None, None)
    assert one.token_ids.tolist() == [*TOKENIZER.encode("<42>"), TOKENIZER.eos[0]]
    assert one.served == (("<4", -0.25), ("2>", -1.5))
    ((path, headers, body),) = server.seen
    assert path == "/v1/chat/completions" and headers["Authorization"] == f"Bearer {SECRET}"
    assert body == {
        "model": "a-model", "temperature": 0.5, "top_k": 7, "top_p": 0.9, "max_tokens": 33, "stop": ["#"],
        "logprobs": True, "messages": [{"role": "system", "content": "short"}, {"role": "user", "content": "6*7="}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "recorded", "ends"),
    [("length", "length", False), (None, "stop", True), ("content_filter", "content_filter", False)],
)
def test_how_an_answer_ended_is_recorded(reason: str | None, recorded: str, ends: bool, serve: Any) -> None:
    server = serve(lambda n, body: completion("a", finish_reason=reason))
    (one,) = answers(engine(server, key_variable=None, limit_field="max_completion_tokens"), [ask(0)])
    assert one.finish_reason == recorded and (one.token_ids[-1] == TOKENIZER.eos[0]) == ends
    ((_, headers, body),) = server.seen
    assert "Authorization" not in headers and body["max_completion_tokens"] == 256 and "max_tokens" not in body


def test_many_are_asked_at_once_and_no_more_than_may_be(serve: Any) -> None:
    def slow(n: int, body: dict[str, Any]) -> Any:
        time.sleep(0.05)
        return echo(n, body)

    server = serve(slow)
    found = {one.key: one.text for one in answers(engine(server, in_flight=5), [ask(i) for i in range(30)])}
    assert found == {i: f"<{i}?>" for i in range(30)} and 2 <= server.most <= 5


BROKEN: dict[str, Any] = {
    "429": (429, {"Retry-After": "0.02"}, b"{}"),
    "429 with a date": (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, b""),
    "500": (500, {}, b"oh"),
    "503": (503, {}, b""),
    "broken JSON": (200, {}, b'{"choices": [{"mess'),
    "no JSON": (200, {}, b"<html>"),
    "no UTF-8": (200, {}, b"\xff\xfe"),
    "a list": (200, {}, b"[]"),
    "no choices": (200, {}, b'{"choices": []}'),
    "no message": (200, {}, b'{"choices": [{"message": null}]}'),
    "cut before": None,
    "cut in the middle": (200, {"Content-Length": "9999"}, b'{"choices": ['),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_may_pass_is_asked_again(name: str, serve: Any) -> None:
    server = serve(lambda n, body: BROKEN[name] if n < 2 else echo(n, body))
    (one,) = answers(engine(server, timeout_s=2.0), [ask(0)])
    assert (one.text, one.error, len(server.seen)) == ("<0?>", None, 3)


@pytest.mark.parametrize(
    ("reply", "said", "asked"),
    [
        ((500, {}, b"oh"), "answers with status 500", 4),
        (None, "cuts the connection", 4),
        ((200, {}, b"{"), "gives answers that are not JSON", 4),
        ((401, {}, SECRET.encode()), r"refuses the key in A_KEY \(status 401\)", 1),
        ((403, {}, SECRET.encode()), "refuses the key", 1),
        ((404, {}, b""), r"knows no such model or path \(a-model\)", 1),
        ((400, {}, b'{"error": "top_k\n is not known to ' + SECRET.encode() + b'"}'), "status 400: .*top_k is not", 1),
        ((307, {"Location": "http://127.0.0.1:9/v1"}, b""), "answers with status 307", 1),
    ],
)
def test_an_endpoint_that_answers_nothing_is_a_sentence(reply: Any, said: str, asked: int, serve: Any) -> None:
    server = serve(lambda n, body: reply)
    one = engine(server, in_flight=1)
    with pytest.raises(UserError, match=said) as error:
        list(answers(one, [ask(i) for i in range(3)]))
    assert len(server.seen) == asked and SECRET not in str(error.value) and server.url in str(error.value)
    assert one.advance() == [], "nothing is under way"


def test_nobody_there(serve: Any) -> None:
    server = serve(echo)
    server.close()
    with pytest.raises(UserError, match="cannot be reached: .*refused"):
        list(answers(engine(server), [ask(0)]))
    gone = EndpointEngine(Endpoint("http://nowhere.invalid/v1", "m", attempts=1), TOKENIZER)
    with pytest.raises(UserError, match="cannot be reached"):
        list(answers(gone, [ask(0)]))


def test_a_slow_answer_is_given_up_and_asked_again(serve: Any) -> None:
    def slow_at_first(n: int, body: dict[str, Any]) -> Any:
        time.sleep(1.5 if n == 0 else 0)
        return echo(n, body)

    (one,) = answers(engine(serve(slow_at_first), timeout_s=0.5), [ask(0)])
    assert one.text == "<0?>"
    with pytest.raises(UserError, match="gives no answer within 0.2 s"):
        server = serve(lambda n, body: time.sleep(0.6))
        list(answers(engine(server, timeout_s=0.2, attempts=2), [ask(0)]))


def test_one_question_that_cannot_be_answered_harms_no_other(serve: Any) -> None:
    def reply(n: int, body: dict[str, Any]) -> Any:
        text = body["messages"][-1]["content"]
        return (500, {}, b"") if text == "2?" else completion("\u20ac") if text == "4?" else echo(n, body)

    found = {one.key: one for one in answers(engine(serve(reply), backoff_s=0.1), [ask(i) for i in range(6)])}
    assert found[2].error is not None and "status 500" in found[2].error and len(found[2].token_ids) == 0
    assert found[4].error is not None and "no token for '\u20ac'" in found[4].error
    assert [found[i].text for i in (0, 1, 3, 5)] == ["<0?>", "<1?>", "<3?>", "<5?>"]


def test_what_is_cancelled_never_comes(serve: Any) -> None:
    server = serve(lambda n, body: (time.sleep(0.2), echo(n, body))[1])
    one = engine(server, in_flight=2)
    one.submit([ask(i) for i in range(20)])
    one.cancel()
    assert one.advance() == []
    assert [done.text for done in answers(one, [ask(0, "new")])] == ["<new>"] and len(server.seen) <= 6


def test_the_key_is_in_no_representation_and_no_settings(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one = engine(serve(echo))
    assert SECRET not in repr(one.endpoint) + repr(vars(one)) + repr(one)
    for value in ("", " ", "a\nb", "a b", "\u20ac"):
        monkeypatch.setenv("A_KEY", value)
        with pytest.raises(UserError, match="the environment variable A_KEY holds no key for http") as error:
            engine(serve(echo))
        assert not value.strip() or value not in str(error.value)
    for url in ("ftp://x/v1", "x/v1", "http:///v1", "http://x/v1?key=1"):
        with pytest.raises(UserError, match="an endpoint is http"):
            Endpoint(url, "m")
    with pytest.raises(UserError, match="the URL of host holds a password") as error:
        Endpoint("https://me:hidden@host/v1", "m")
    assert "hidden" not in str(error.value)


def held(name: str, one: EndpointEngine, n: int, learns: bool = True) -> list[Episode]:
    spec = registry.find_task(name)
    task = Task(spec)
    provenance = Provenance("run", spec.id, 0, ruleset_digest(spec), "b" * 64, "0.1", "here", "CC0-1.0", None, "cot_rl")
    posed = (task.pose(seed, spec.difficulties[0]) for seed in range(100))
    works = [Assignment(one, f"g{i}", 0) for i, one in enumerate([one for one in posed if not one.held_out][:n])]
    speaker = Speaker(one, TOKENIZER, "a-model", None, 4000, learns)
    episodes = list(Dialogues(Recorder(provenance, "a", 1, task), {0: speaker}, Sampling()).hold(works))
    task.close()
    return episodes


def test_a_teacher_becomes_episodes_to_imitate(serve: Any) -> None:
    server = serve(lambda n, body: completion("#8" if len(body["messages"]) == 1 else "#9"))
    episodes = held("guess_number", engine(server), 3)
    for episode, line in zip(episodes, sequences_from(to_batch(episodes)).lines, strict=True):
        turns = [turn for turn in episode.reasoning["turns"] if turn["role"] == "assistant"]
        assert episode.provenance.origin == "teacher" and episode.trainable
        assert verify_episode(episode, Rules([])).state == "true"
        assert all(turn["logprobs"] is None and all(turn["loss_mask"]) for turn in turns)
        assert TOKENIZER.decode(line.ids[line.loss_mask].tolist()) == "".join(turn["text"] for turn in turns)
    longest = max((body["messages"] for _, _, body in server.seen), key=len)
    assert [m["role"] for m in longest[:4]] == ["user", "assistant", "user", "assistant"]
    assert longest[1]["content"] == "#8"
    frozen = held("guess_number", engine(server), 2, learns=False)
    assert not len(sequences_from(to_batch(frozen))) and {one.provenance.origin for one in frozen} == {"cot_rl"}


def test_a_dialogue_whose_seat_gets_no_answer_is_an_error_and_never_a_zero(serve: Any) -> None:
    server = serve(lambda n, body: echo(n, body) if n % 2 == 0 else (400, {}, b"too long"))
    episodes = held("parity", engine(server, in_flight=1), 4)
    assert [one.status for one in episodes] == ["ok", "error", "ok", "error"]
    for one in (episodes[1], episodes[3]):
        assert one.error is not None and one.error[0] == "policy" and "status 400: too long" in one.error[1]
        assert one.returns is None and not one.trainable and one.verdicts[0]["reward"] is None
