"""An object store that fails as real ones do: nothing is lost or doubled, and whoever made an object is told so."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyspiel
import pytest

from selfplay import store
from selfplay.episode import Provenance, random_episode, to_batch
from selfplay.io import object_store, storage
from tests.e2e.faulty_store import KINDS, FaultyStore

pytestmark = pytest.mark.slow
Start = Callable[..., Any]
Sound = Callable[..., pa.Table]
GAME = pyspiel.load_game("tic_tac_toe")
PROVENANCE = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")


@pytest.fixture
def faulty(s3_uri: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """Stands between this test, with its children, and the store; without faults at first."""
    between = FaultyStore(s3_endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL", between.endpoint)
    try:
        yield between
    finally:
        between.down()


@pytest.mark.parametrize("seed", range(2))
def test_every_operation_does_what_it_says(faulty: FaultyStore, s3_uri: str, seed: int) -> None:
    faulty.fail(0.25, seed)
    there: dict[str, bytes] = {}
    for n in range(40):
        uri, data = f"{s3_uri}/some/{n:02d}", bytes([n]) * 2000
        assert storage.create(uri, data)
        assert not storage.create(uri, data)
        if n % 3 == 0:
            data += b"more"
            storage.write(uri, data)
        assert storage.read(uri) == data and storage.size(uri) == len(data) and storage.exists(uri)
        there[f"{n:02d}"] = data
        if n % 4 == 0:
            storage.delete(uri)
            del there[f"{n:02d}"]
            assert not storage.exists(uri)
        assert storage.names(f"{s3_uri}/some") == sorted(there)
    assert set(faulty.seen) > {"lost", "gateway", "cut", "busy", "dropped"}


@pytest.mark.parametrize("objects", [0, 39, 40])
def test_a_long_list_is_whole(faulty: FaultyStore, s3_uri: str, monkeypatch: pytest.MonkeyPatch, objects: int) -> None:
    """Page by page, each asked again by itself; nothing is named twice or left out, nor taken from beside."""
    monkeypatch.setattr(object_store, "_PAGE", 8)
    uris = [f"{s3_uri}/a/{n % 3}/{n}" for n in range(objects)]
    for uri in [*uris, f"{s3_uri}/a-b/0", f"{s3_uri}/b/0"]:
        storage.write(uri, b"1")
    faulty.fail(0.3, 5)
    assert sorted(entry.uri for entry in storage.entries(f"{s3_uri}/a")) == sorted(uris)


def test_of_many_makers_exactly_one_is_told_so(faulty: FaultyStore, s3_uri: str) -> None:
    """With the same bytes, too: it is not by them that it knows its own."""
    faulty.fail(0.5, 1, ("lost", "gateway"))
    with ThreadPoolExecutor(4) as makers:
        for n in range(15):
            told = list(makers.map(lambda _, n=n: storage.create(f"{s3_uri}/{n}", b"the same"), range(4)))
            assert sum(told) == 1


def test_a_driver_does_not_wait_for_itself(faulty: FaultyStore, s3_uri: str) -> None:
    faulty.fail(0.3, 2, ("lost", "gateway"))
    for n in range(5):
        with store.acquire(f"{s3_uri}/{n}", "somebody") as lease:
            assert lease.epoch == 1


@pytest.mark.parametrize(("share", "kinds"), [(0.2, KINDS), (0.3, ("lost", "gateway"))], ids=["all", "lost"])
def test_blocks_are_committed_once(faulty: FaultyStore, s3_uri: str, share: float, kinds: tuple[str, ...]) -> None:
    corpus, statuses, added = f"{s3_uri}/corpus", Counter[str](), 0
    faulty.fail(share, 4, kinds)
    committer = store.Committer(corpus, "run", 1)
    writer = committer.register("a0")
    for number in range(20):
        played = [random_episode(GAME, n, PROVENANCE, slot="a0", epoch=writer.epoch, number=n)
                  for n in range(2 * number, 2 * number + 2)]  # fmt: skip
        block = store.write_block(corpus, to_batch(played), "a0", writer.epoch, number)
        (receipt,) = committer.commit([block])
        statuses[receipt.status] += 1
        if number % 5 == 0:
            added += store.append(corpus, "runs", [{"run_id": "run", "epoch": number}])
            assert not store.append(corpus, "runs", [{"run_id": "run", "epoch": number}])
    assert sum(statuses.values()) == 20
    assert kinds == KINDS or statuses["already"]  # some acknowledgement was lost
    faulty.fail(0.0)
    assert added == store.open(corpus).table("runs").num_rows == 4
    rows = store.open(corpus).to_arrow()
    assert sorted(rows["number"].to_pylist()) == list(range(40))


def test_a_run_over_a_bad_network(
    faulty: FaultyStore, s3_uri: str, start: Start, sound: Sound, quick: list[str]
) -> None:
    faulty.fail(0.04, 3)
    driver = start("tic_tac_toe", "--out", f"{s3_uri}/run", *quick, "--set=run.positions=4000", "--json")
    assert driver.wait() == 0, driver.told
    faulty.fail(0.0)
    rows = sound(f"{s3_uri}/run")
    status = driver.summary()["status"]
    assert status["episodes"] == rows.num_rows and status["version"] >= 1
    assert faulty.seen["lost"] and faulty.seen["busy"], faulty.seen


def test_a_run_outlasts_a_store_that_is_away(
    faulty: FaultyStore, s3_uri: str, start: Start, sound: Sound, quick: list[str]
) -> None:
    driver = start("tic_tac_toe", "--out", f"{s3_uri}/run", *quick, "--minutes=30", "--json")
    before = driver.until_archived(f"{s3_uri}/run", 50)
    faulty.down()
    back = threading.Timer(15.0, faulty.up)
    back.start()
    back.join()
    driver.until_archived(f"{s3_uri}/run", before + 500)
    driver.interrupt()
    assert driver.wait() == 0, driver.told
    rows = sound(f"{s3_uri}/run")
    assert driver.summary()["status"]["episodes"] == rows.num_rows


@pytest.mark.parametrize("kind", ["Student", "Player", "Archivist"])
def test_an_actor_that_starts_while_the_store_is_away_outlasts_it(
    faulty: FaultyStore, s3_uri: str, start: Start, sound: Sound, quick: list[str], kind: str
) -> None:
    """It has never heard the store itself, but its driver has: its patience is the driver's."""
    driver = start("tic_tac_toe", "--out", f"{s3_uri}/run", *quick, "--minutes=30", "--json")
    before = driver.until_archived(f"{s3_uri}/run", 300)
    driver.until(lambda: driver.actor(kind), kind)
    faulty.down()
    driver.actor(kind).kill()  # another begins in vain
    time.sleep(45.0)  # more than a store is given that nobody has heard
    faulty.up()
    driver.until_archived(f"{s3_uri}/run", before + 500)
    driver.interrupt()
    assert driver.wait() == 0, driver.told
    rows = sound(f"{s3_uri}/run")
    assert driver.summary()["status"]["episodes"] == rows.num_rows


def test_a_run_ends_in_a_sentence_where_the_store_stays_away(
    faulty: FaultyStore, s3_uri: str, start: Start, sound: Sound, quick: list[str]
) -> None:
    words = ["tic_tac_toe", "--out", f"{s3_uri}/run", *quick, "--json"]
    driver = start(*words, "--minutes=30")
    driver.until_archived(f"{s3_uri}/run", 50)
    faulty.down()
    assert driver.wait() == 2, driver.told
    said = [line for line in driver.told.splitlines() if line.startswith("error: ")]
    assert len(said) == 1 and "Traceback" not in driver.told, driver.told
    other = start(*words, "--minutes=30")  # nobody has ever answered this one
    assert other.wait() == 2 and "the object store did not answer" in other.told, other.told
    faulty.up()
    told = sound(f"{s3_uri}/run")
    assert told.num_rows >= driver.games_told
    time.sleep(1.0)
    driver = start(*words, "--set=run.positions=3000")
    assert driver.wait() == 0, driver.told
    assert set(told["episode_id"].to_pylist()) < set(sound(f"{s3_uri}/run")["episode_id"].to_pylist())
