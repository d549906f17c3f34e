"""S3 behind `selfplay.io.storage`: asked again while it does not answer.

The clients retry by themselves, but not everything (not a list whose answer breaks off), and back off too little to
outlast more than a moment. So they are asked again here, with growing pauses of random length, for as long as a run
should wait rather than end. A store that has not answered this process at all is sooner given up, as its address may
be wrong, unless whoever started the process has heard it.
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any, TypeVar

from selfplay.errors import UserError

#: How long a store may be silent that has answered before, and one that never has.
PATIENCE_S, KNOCK_S = 90.0, 20.0
_LONGEST_PAUSE_S = 5.0
#: Objects that a store names at once, at most.
_PAGE = 1000
#: Metadata of what `create` makes: who made it.
_WRITER = "selfplay-writer"
#: In the text of an error of obstore or deltalake, which have one for everything that has no name of its own: no
#: answer, half a one, a 5xx; but also a request that is wrong, and would be again.
_NO_ANSWER = "Generic S3 error"
_REFUSED = re.compile(r"status code: 4(?!08|29)\d\d")
_Place = tuple[str, str | None, str | None]
_Answer = TypeVar("_Answer")
_heard: set[_Place] = set()


def endpoint() -> str | None:
    """The address of the store, None for Amazon's own."""
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    return next((os.environ[name] for name in names if os.environ.get(name)), None)


class Patience:
    """With a store that does not answer, from now on, for so many seconds."""

    def __init__(self, seconds: float = PATIENCE_S) -> None:
        self._until, self._attempt = time.monotonic() + seconds, 0

    def again(self, error: BaseException) -> bool:
        """Waits a while and says True, where the error means that the store did not answer, and it is not too late.

        Whatever was asked may then have been done all the same.
        """
        if _NO_ANSWER not in str(error) or _REFUSED.search(str(error)) or time.monotonic() > self._until:
            return False
        pause(self._attempt)
        self._attempt += 1
        return True


def ask(uri: str, request: Callable[[Any, str], _Answer]) -> _Answer:
    """What `request(store, key)` returns; asked again while the store does not answer, or says that it cannot now.

    uri: `s3://bucket/key`, normalised. request: may be made several times, also after it was carried out.
    """
    from obstore.exceptions import GenericError

    place, key = _split(uri)
    patience = Patience(PATIENCE_S if place in _heard else KNOCK_S)
    while True:
        try:
            answer = request(_client(*place), key)
        except GenericError as error:
            if not patience.again(error):
                _heard.discard(place)
                raise
        except Exception:
            _heard.add(place)
            raise
        else:
            _heard.add(place)
            return answer


def listed(uri: str, begin_after: str | None = None) -> Iterator[Any]:
    """What obstore says of each object below `uri`, in the order of their names; only of those after a URI, if given.

    A page is one request, asked again by itself: of a long list neither all is held, nor all begun anew.
    """

    def page(store: Any, key: str) -> Sequence[Any]:
        stream = _obstore().list(store, prefix=key or None, offset=after, chunk_size=_PAGE)
        return next(iter(stream), ())

    after: str | None = None if begin_after is None else _split(begin_after)[1]
    while True:
        found = ask(uri, page)
        yield from found
        if len(found) < _PAGE:
            return
        after = found[-1]["path"]


def trust(uri: str) -> None:
    """Whoever has started this process has heard the store: its silence is an outage, to be outlasted."""
    _heard.add(_split(uri)[0])


def knock(uri: str) -> None:
    """Raises where the store has never answered this process and does not now."""
    from obstore.exceptions import GenericError

    if _split(uri)[0] not in _heard:
        try:
            ask(uri, lambda store, _: _obstore().head(store, ".knock"))
        except GenericError:
            raise
        except Exception:
            return  # an answer, too


def create(uri: str, data: bytes) -> bool:
    """Puts the object if there is none; whether it was put.

    Where the acknowledgement is lost, the next attempt finds the object there: it tells by whom it was made.
    """
    from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

    writer = uuid.uuid4().hex

    def put(store: Any, key: str) -> bool:
        for attempt in range(20):
            try:
                _obstore().put(store, key, data, mode="create", attributes={_WRITER: writer})
                return True
            except (AlreadyExistsError, PreconditionError):
                try:
                    found = _obstore().get(store, key, options={"head": True})
                    return bool(found.attributes.get(_WRITER) == writer)
                except (NotFoundError, FileNotFoundError):  # somebody was just making or deleting it
                    pause(attempt)
        raise UserError(f"{uri} can neither be made nor found; the object store must honour conditional writes")

    return ask(uri, put)


def pause(attempt: int) -> None:
    """Waits a random time that grows with the attempts: who failed together must not come again together."""
    time.sleep(random.uniform(0.0, min(_LONGEST_PAUSE_S, 0.1 * 2 ** min(attempt, 10))))


def deltalake_retries() -> dict[str, str]:
    """deltalake's own client, with the same patience: bounded by time, as its pauses are of random length."""
    return {
        "max_retries": "1000",
        "retry_timeout": f"{PATIENCE_S:.0f}s",
        "backoff_config.init_backoff": "100ms",
        "backoff_config.max_backoff": f"{_LONGEST_PAUSE_S:.0f}s",
        "backoff_config.base": "3",
    }


def _split(uri: str) -> tuple[_Place, str]:
    _, _, bucket, *rest = uri.split("/")
    return (bucket, endpoint(), os.environ.get("AWS_ACCESS_KEY_ID")), "/".join(rest)


@lru_cache(maxsize=32)
def _client(bucket: str, address: str | None, _key: str | None) -> Any:
    from obstore.store import S3Store

    config: Any = {"endpoint": address} if address else {}
    return S3Store(
        bucket,
        config=config,
        client_options={"allow_http": bool(address and address.startswith("http://"))},
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=10)},
    )


def _obstore() -> Any:
    import obstore

    return obstore
