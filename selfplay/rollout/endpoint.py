"""A policy behind an HTTP endpoint that speaks OpenAI's chat completions: a teacher, an opponent, a judge; frozen.

The endpoint gets messages and gives text. The text is recorded with the tokens that a tokenizer of ours gives it, and
without log-probabilities: it can be imitated, and never learned from by its likelihood.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np

from selfplay.errors import UserError
from selfplay.nets.language.tokenizer import Tokenizer
from selfplay.rollout.engine import Array, Completion, Request

#: Statuses after which it may go better; 5xx, too.
_AGAIN = (408, 425, 429)
_LONGEST_WAIT_S = 60.0
_MOST_BYTES = 2**24
_REASONS = {401: "refuses the key", 403: "refuses the key", 404: "knows no such model or path"}


@dataclass(frozen=True)
class Endpoint:
    """Where a model is served, and how it is asked.

    url: up to and with "/v1". model: as the endpoint calls it. key_variable: environment variable that holds the key;
    None: there is none. The key itself is read at each call, kept nowhere, and sent to this URL only. in_flight: most
    requests at once. timeout_s: of one attempt. attempts: at one answer. backoff_s: before the second attempt; it
    doubles from one to the next, up to a minute, unless the endpoint says how long to wait. logprobs: ask for them.
    limit_field: how the endpoint calls the most tokens of an answer; some want "max_completion_tokens".
    """

    url: str
    model: str
    key_variable: str | None = None
    in_flight: int = 8
    timeout_s: float = 120.0
    attempts: int = 6
    backoff_s: float = 1.0
    logprobs: bool = False
    limit_field: str = "max_tokens"

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UserError(f"an endpoint is http(s)://host/v1, and {parts.scheme}://{parts.hostname or ''} is given")
        if parts.username or parts.password:
            raise UserError(f"the URL of {parts.hostname} holds a password; put the key into an environment variable")
        if self.in_flight < 1 or self.attempts < 1 or self.timeout_s <= 0 or self.backoff_s < 0:
            raise UserError("in_flight and attempts must be at least 1, timeout_s more than 0, backoff_s at least 0")

    def key(self) -> str | None:
        """The key, as the environment has it now. Raises `UserError` where it is missing or cannot be sent."""
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key or not (key.isascii() and key.isprintable()) or " " in key:
            raise UserError(f"the environment variable {self.key_variable} holds no key for {self.url}")
        return key


class EndpointEngine:
    """Answers through an endpoint, several requests at once, each in a thread. Requests must have messages."""

    version = 0

    def __init__(self, endpoint: Endpoint, tokenizer: Tokenizer) -> None:
        """tokenizer: gives the tokens that answers are recorded with."""
        endpoint.key()
        self.endpoint, self._tokenizer = endpoint, tokenizer
        self._waiting: SimpleQueue[tuple[_Batch, Request]] = SimpleQueue()
        self._batch = _Batch()
        self._threads = 0
        self._open = 0
        self._answered = 0
        self._opener = urllib.request.build_opener(_NoRedirect)

    def submit(self, requests: Sequence[Request]) -> None:
        """As `Engine.submit`."""
        if any(not request.messages for request in requests):
            raise ValueError("an endpoint answers messages, and a request has none")
        for request in requests:
            self._waiting.put((self._batch, request))
            self._open += 1
            if self._threads < min(self._open, self.endpoint.in_flight):
                self._threads += 1
                threading.Thread(target=self._work, daemon=True).start()

    def advance(self) -> list[Completion]:
        """As `Engine.advance`. What an endpoint could not answer has an `error`.

        Raises `UserError` where it cannot answer anything: it refuses the key, does not know the model, is not there.
        """
        found: list[Completion] = []
        while self._open and not found:
            one: Completion | UserError | None = self._batch.done.get()
            while one is not None:
                if isinstance(one, UserError):
                    self.cancel()
                    raise one
                found.append(one)
                self._open -= 1
                try:
                    one = self._batch.done.get_nowait()
                except Empty:
                    one = None
        return found

    def cancel(self) -> None:
        """As `Engine.cancel`; answers to what was sent already are thrown away."""
        self._batch.over.set()
        self._batch, self._open = _Batch(), 0

    def load(self, tensors: dict[str, Array], version: int) -> None:
        """Raises `TypeError`: what is behind an endpoint is frozen."""
        raise TypeError("a policy behind an endpoint takes no weights")

    def _work(self) -> None:
        while True:
            batch, request = self._waiting.get()
            if batch.over.is_set():
                continue
            try:
                batch.done.put(self._answer(request, batch.over))
            except UserError as error:
                batch.over.set()  # the others of the batch are not sent any more
                batch.done.put(error)
            except Exception as error:
                batch.done.put(_failed(request, f"{type(error).__name__} at {self.endpoint.url}"))

    def _answer(self, request: Request, over: threading.Event) -> Completion:
        """Raises `UserError` where no request can be answered."""
        e, before, reason, wait = self.endpoint, self._answered, "", None
        body = json.dumps(self._body(request)).encode()
        for attempt in range(e.attempts):
            try:
                completion = self._completion(request, self._post(body))
                self._answered += 1
                return completion
            except _Refused as refused:
                reason, wait = refused.reason, refused.wait_s
                if wait is None:
                    break
            if attempt + 1 < e.attempts:
                pause = wait or e.backoff_s * 2**attempt * random.uniform(0.5, 1.5)
                if over.wait(min(_LONGEST_WAIT_S, pause)):
                    return _failed(request, "cancelled")
        if self._answered == (0 if wait is None else before):  # nor did it answer anything else meanwhile
            raise UserError(f"the endpoint {e.url} {reason}")
        return _failed(request, f"the endpoint {e.url} {reason}")

    def _body(self, request: Request) -> dict[str, Any]:
        s = request.sampling
        roles = {"tool": "user"}  # a tool's text belongs to no call that the endpoint knows of
        body: dict[str, Any] = {
            "model": self.endpoint.model,
            "messages": [{"role": roles.get(role, role), "content": text} for role, text in request.messages],
            "temperature": s.temperature,
            self.endpoint.limit_field: s.max_tokens,
        }
        given = {"top_p": s.top_p, "top_k": s.top_k, "stop": list(s.stop) or None}
        body |= {name: value for name, value in given.items() if value is not None}
        return body | {"logprobs": True} if self.endpoint.logprobs else body

    def _post(self, body: bytes) -> dict[str, Any]:
        """What the endpoint says. Raises `_Refused`, and `UserError` where asking again is of no use to anyone."""
        e, key = self.endpoint, self.endpoint.key()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        url, until = f"{e.url.rstrip('/')}/chat/completions", time.monotonic() + e.timeout_s
        try:
            with self._opener.open(urllib.request.Request(url, body, headers), timeout=e.timeout_s) as response:
                parts, size = [], 0
                while part := response.read1(65536):
                    parts.append(part)
                    size += len(part)
                    if time.monotonic() > until:
                        raise TimeoutError
                    if size > _MOST_BYTES:
                        raise _Refused("gives an answer of more than 16 MiB", None)
                said = json.loads(b"".join(parts))
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error, key) from None
        except (TimeoutError, http.client.HTTPException, ConnectionResetError, BrokenPipeError) as error:
            raise _Refused(_cut(error, e.timeout_s), 0.0) from None
        except urllib.error.URLError as error:
            cause = error.reason
            if isinstance(cause, TimeoutError | ConnectionResetError):
                raise _Refused(_cut(cause, e.timeout_s), 0.0) from None
            raise _Refused(f"cannot be reached: {str(cause)[:200]}", 0.0 if self._answered else None) from None
        except ValueError:  # not JSON, or not UTF-8
            raise _Refused("gives answers that are not JSON", 0.0) from None
        if not isinstance(said, dict):
            raise _Refused("gives answers that are no chat completions", 0.0)
        return said

    def _refusal(self, error: urllib.error.HTTPError, key: str | None) -> Exception:
        status, e = error.code, self.endpoint
        if status in _REASONS:
            named = f" in {e.key_variable}" if status != 404 and e.key_variable else ""
            asked = f" ({e.model})" if status == 404 else ""
            return UserError(f"the endpoint {e.url} {_REASONS[status]}{named}{asked} (status {status})")
        again = status in _AGAIN or status >= 500
        try:
            told = error.read(2000).decode("utf-8", "replace") if not again else ""
        except (OSError, http.client.HTTPException):
            told = ""
        if key is not None:
            told = told.replace(key, "…")
        reason = f"answers with status {status}" + (f": {' '.join(told.split())[:300]}" if told else "")
        return _Refused(reason, _retry_after(error) if again else None)

    def _completion(self, request: Request, said: dict[str, Any]) -> Completion:
        try:
            choice = said["choices"][0]
            text, reason = choice["message"].get("content") or "", choice.get("finish_reason") or "stop"
            rows = (choice.get("logprobs") or {}).get("content") or ()
            served = tuple((str(row["token"]), float(row["logprob"])) for row in rows)
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        except (LookupError, TypeError, AttributeError, ValueError):
            raise _Refused("gives answers that are no chat completions", 0.0) from None
        try:
            ids = self._tokenizer.encode(text)
        except UserError as error:
            return _failed(request, str(error))
        ids += self._tokenizer.eos[:1] if reason == "stop" else ()
        return Completion(request.key, np.array(ids, np.int32), None, str(reason), text, served=served)


class _Batch:
    """Requests that are cancelled together."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.done: SimpleQueue[Completion | UserError] = SimpleQueue()


class _Refused(Exception):
    """No answer. wait_s: how long the endpoint says to wait, 0 where it does not; None: asking again is of no use."""

    def __init__(self, reason: str, wait_s: float | None) -> None:
        super().__init__(reason)
        self.reason, self.wait_s = reason, wait_s


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Another place might be anyone's, and the key would go there."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


def _failed(request: Request, reason: str) -> Completion:
    return Completion(request.key, np.zeros(0, np.int32), None, "error", "", error=reason)


def _cut(error: BaseException, timeout_s: float) -> str:
    return f"gives no answer within {timeout_s:g} s" if isinstance(error, TimeoutError) else "cuts the connection"


def _retry_after(error: urllib.error.HTTPError) -> float:
    try:
        return max(0.0, float(error.headers.get("Retry-After") or 0))
    except ValueError:  # a date
        return 0.0
