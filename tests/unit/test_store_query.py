"""The corpus as SQL and as frames: rows unfold, units are restored, wrong questions get one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from selfplay import store
from selfplay.cli.corpus import app
from selfplay.environments import registry
from selfplay.environments.game import load
from selfplay.episode import Episode, Provenance, from_batch, to_batch
from selfplay.errors import UserError
from selfplay.play.generator import Generator, PlaySettings, Policy
from selfplay.search import SearchConfig
from selfplay.search.hash_net import HashNet
from selfplay.store.corpus.query import condition
from selfplay.store.export import export

runner = CliRunner()
GAME = load(registry.find("tic_tac_toe"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> store.Corpus:
    """Thirty games of search, and the policy that played them."""
    uri = str(tmp_path_factory.mktemp("run") / "corpus")
    provenance = Provenance("run", "tic_tac_toe-v0", 0, "a" * 64, "b" * 64, "0.1.0", "here", "CC0-1.0")
    settings = PlaySettings(slots=8, simulations=8, opening_fraction=0.5, opening_plies=2, ply_limit=9)
    net = HashNet(GAME.num_actions, value_range=1.0)
    committer = store.Committer(uri, "run", 1)
    epoch = committer.register("a").epoch
    one = Generator(GAME, net, SearchConfig(), settings, provenance, "a", epoch, 0, np.random.default_rng(0))
    one.set_policy(Policy("run", 3, "c" * 64))
    episodes: list[Episode] = one.play(lambda sealed, _: sealed >= 30)[:30]
    committer.commit([store.write_block(uri, to_batch(episodes), "a", epoch, 0)])
    store.append(uri, "policies", [{"policy_id": "run", "version": 3, "digest": "c" * 64, "run_id": "run"}])
    return store.open(uri)


def test_steps_are_what_the_episodes_hold(corpus: store.Corpus) -> None:
    episodes = {e.episode_id: e for e in corpus.records()}
    rows = pa.Table.from_batches(corpus.steps()).to_pylist()
    assert len(rows) == sum(e.n_steps for e in episodes.values())
    for row in rows:
        game = episodes[row["episode_id"]].game
        assert game is not None
        step = game.steps[row["step"]]
        assert (row["seat"], row["action"], row["source"]) == (step.seat, step.action, step.source)
        assert row["n_candidates"] == len(step.actions)
        if step.source == "search":
            assert row["root_value"] == pytest.approx(step.root_value, abs=1e-6)
            assert row["raw_value"] == pytest.approx(step.raw_value, abs=1e-6)
    some = pa.Table.from_batches(corpus.steps("seat = 1 and source = 'search'", ["step", "seat"]))
    assert some.column_names == ["step", "seat"] and set(some["seat"].to_pylist()) == {1}


def test_candidates_and_seats(corpus: store.Corpus) -> None:
    connection = corpus.to_duckdb()
    shares = connection.execute("select sum(prior), sum(visits) from candidates group by episode_id, step").fetchall()
    assert all(abs(prior - 1) < 1e-3 and visits == 8 for prior, visits in shares)
    wrong = connection.execute("select count(*) from candidates where q not between -1 and 1").fetchone()
    assert wrong == (0,)
    total = connection.execute('select sum("return"), count(*) from seats').fetchone()
    assert total == (0.0, 60)  # zero-sum, two seats each
    joined = connection.execute(
        "select count(*) from episodes e join policies p on e.policy_spans[-1].digest = p.digest"
    ).fetchone()
    assert joined == (30,)
    assert connection.execute("select count(*) from verdicts").fetchone() == (0,)


def test_polars_reads_the_same(corpus: store.Corpus) -> None:
    frame = corpus.to_polars().select("episode_id", "n_steps").collect()
    assert frame["n_steps"].sum() == sum(e.n_steps for e in from_batch(corpus.to_arrow()))


def test_the_command(corpus: store.Corpus) -> None:
    sql = "select status, count(*) as n from episodes group by 1"
    done = runner.invoke(app, ["query", sql, corpus.uri, "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout) == {"status": "ok", "n": 30}
    done = runner.invoke(app, ["query", "select * from steps", corpus.uri])
    assert done.exit_code == 0 and "more rows" in done.stdout


def test_sums_are_numbers(corpus: store.Corpus) -> None:
    sql = "select sum(n_steps) as s, avg(n_steps) as a from episodes"
    done = runner.invoke(app, ["query", sql, corpus.uri, "--json"])
    told = json.loads(done.stdout)
    assert told["s"] == sum(e.n_steps for e in corpus.records()) and isinstance(told["a"], float)


def test_times_keep_their_zone(corpus: store.Corpus) -> None:
    from selfplay.store.corpus.query import query

    names, rows = query(corpus, "select started_at, count(*) as n, n as again from (select *, 1 as n from episodes)"
                                " group by all limit 1")  # fmt: skip
    assert names == ["started_at", "n", "again"] and rows[0][0].utcoffset().total_seconds() == 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("selec 1", "syntax error"),
        ("select nothing from episodes", '"nothing" not found'),
        ("select * from nowhere", "nowhere does not exist"),
    ],
)
def test_wrong_sql_is_told_in_one_sentence(corpus: store.Corpus, sql: str, said: str) -> None:
    from selfplay.store.corpus.query import query

    with pytest.raises(UserError, match="the query cannot be answered") as caught:
        query(corpus, sql)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_an_empty_side_table_is_there(corpus: store.Corpus) -> None:
    assert corpus.to_duckdb().execute("select count(*) from annotations").fetchone() == (0,)


def test_a_path_that_is_no_corpus(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no corpus"):
        store.open(str(tmp_path))


def test_the_corpus_as_it_was(corpus: store.Corpus) -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    assert store.open(corpus.uri, now).count() == 30
    later = f"{now + timedelta(days=1):%Y-%m-%d}"
    done = runner.invoke(app, ["stats", corpus.uri, "--as-of", later, "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["episodes"] == 30
    with pytest.raises(UserError, match=r"has no version as of 2001-01-01.* \(any more\); its newest is"):
        store.open(corpus.uri, datetime(2001, 1, 1, tzinfo=UTC))
    for version in (-1, 10**6, 2**64):
        with pytest.raises(UserError, match=rf"has no version {version} \(any more\); its newest is"):
            store.open(corpus.uri, version)
    with pytest.raises(UserError, match="is no episode id"):
        corpus.get(f"run/a/1000/{10**19}")


def test_lineage_both_ways(corpus: store.Corpus) -> None:
    (first, *_) = corpus.newest(1)
    done = runner.invoke(app, ["lineage", first, corpus.uri, "--json"])
    told = json.loads(done.stdout)
    assert (told["run_id"], told["env_id"], told["seed"]) == ("run", "tic_tac_toe-v0", corpus.get(first).seed)
    assert told["spans"][-1]["digest"] == "c" * 64 and told["learned_by"] is None
    done = runner.invoke(app, ["lineage", corpus.uri, "--weights", "cccccccc", "--json"])
    told = json.loads(done.stdout)
    assert (told["version"], told["episodes"], told["kept"], told["steps"]) == (3, 30, None, None)
    plain = runner.invoke(app, ["lineage", first, corpus.uri])
    assert plain.exit_code == 0 and "code commit" in plain.stdout
    for words, said in (
        ((first,), f"the corpus that holds episode {first} is missing"),
        ((corpus.uri,), "was taken as the episode, and there is no corpus"),
        (("run", corpus.uri), "run was taken as the episode, but it is no episode id"),
        ((corpus.uri, first), "it is the other way"),
        ((first, corpus.uri, "--weights", "cccccccc"), f"{first} was taken as the corpus"),
        ((corpus.uri, "--weights", "dddddddd"), "no weights have a digest that begins with 'dddddddd'"),
        (("run/a/1000/99999", corpus.uri), "is not in"),
    ):
        failed = runner.invoke(app, ["lineage", *words])
        assert isinstance(failed.exception, UserError) and said in str(failed.exception), words


@pytest.mark.parametrize(
    "text", ["1=1) or (1=1", "true; select 1", "true limit 1", "kind = 'game' union select true", "true /*", "it's", ""]
)
def test_a_filter_is_one_condition_and_nothing_else(corpus: store.Corpus, text: str, tmp_path: Path) -> None:
    """It is put into a larger statement, and must not end the part that it stands in."""
    with pytest.raises(UserError, match="is not one condition in SQL"):
        condition(text)
    with pytest.raises(UserError, match="is not one condition in SQL"):
        list(corpus.ordered(text))
    if text:
        with pytest.raises(UserError, match="is not one condition in SQL"):
            export(corpus, "npz", str(tmp_path / "out"), text)


def test_a_filter_may_be_as_long_as_it_likes(corpus: store.Corpus) -> None:
    def count(text: str) -> int:
        return sum(batch.num_rows for batch in corpus.ordered(text))

    whole = count("true")
    assert count("false and true or (1 = 1) -- all of them") == whole == 30
    assert count("episode_id in (select episode_id from steps where step = 0) /* or */ and ')' <> '('") == whole
