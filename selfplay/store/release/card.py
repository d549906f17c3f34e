"""README.md of a release: a data set card with the front matter of the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from selfplay.store.coverage import meaning, told
from selfplay.store.release.carried import Carried
from selfplay.store.release.certificate import Facts
from selfplay.store.release.croissant import description
from selfplay.store.release.diversity import PLIES
from selfplay.store.release.markdown import plain, visible
from selfplay.store.release.redaction import SAID

#: Data files that the front matter names at most; `selfplay corpus compact` makes few of many.
_LISTED_FILES = 64
#: Upper ends of the Hub's size categories, in rows.
_SIZES = {
    1e3: "n<1K",
    1e4: "1K<n<10K",
    1e5: "10K<n<100K",
    1e6: "100K<n<1M",
    1e7: "1M<n<10M",
    1e8: "10M<n<100M",
    1e9: "100M<n<1B",
}

_READING = """\
The table is a Delta Lake table, and this release is version {version} of it. Read it through its log: files of other
versions lie in the same folders, and a pattern of file names counts episodes twice. `CORPUS` is the folder (or
`s3://…`) that holds `episodes` and `released`.

```python
# our reader, selfplay-factory, is installed from a clone of its repository: pip install .
from selfplay import store
corpus = store.open("CORPUS", version={version})
corpus.get({episode_id})
corpus.to_duckdb().sql("SELECT status, count(*) FROM episodes GROUP BY 1")

# pyarrow: pip install deltalake pyarrow
from deltalake import DeltaTable
episodes = DeltaTable("CORPUS/episodes", version={version}).to_pyarrow_dataset()
episodes.head(10)

# DuckDB: pip install duckdb
import duckdb
duckdb.sql("SELECT env_id, avg(n_steps) FROM episodes GROUP BY 1")  # finds the pyarrow dataset of that name

# Polars: pip install polars deltalake
import polars
polars.scan_delta("CORPUS/episodes", version={version}).select("episode_id", "returns").head().collect()
```

On the Hugging Face Hub this file belongs at the root of a repository that holds `episodes`: its front matter names the
data files of this version.
"""

_DIVERSITY = """\
Repeated: the share of episodes that are, move for move or word for word, like another one of their environment. An
opening is the first plies of a game, drawn at random or not. Where openings are few, or answers to a prompt, more
episodes of the same kind add little. A random part of a corpus then teaches about as much as the whole; the newest part
alone, which is less diverse, may teach less."""

_LIMITS = """\
- Archived is not trainable: learn from rows with `trainable` only. Aborted, failed and truncated episodes are kept, so
  that nothing is hidden, and have no outcome unless `returns` says so.
- A game that ended by resignation has the returns of that resignation; the rules were not played to their end. Those
  with `played_on_after_resignation` measure how often a resignation would have been wrong.
- Steps with source `opening` (and `random`) were not chosen by the policy under training: they spread the positions.
- Rounding of stored priors and values, their units and points of view: see SCHEMA.md.
- That a search was carried out as recorded is not proven: its counts are checked to be consistent, and the moves, the
  chance outcomes, the end and the returns are replayed. What "true" covers, and what not, stands above.
- An episode that is "not checkable" was made under rules that are not installed where the release was made.
"""


def card(facts: Facts, episode_id: str | None, key: str | None, carried: Carried | None = None) -> str:
    """The whole text. episode_id: one that is in it, for the examples; None where there is none. key: who signs it.

    carried: the weights that lie beside it; None: none.
    """
    example = json.dumps(episode_id or "run/slot/epoch/number").replace("`", "\\u0060")
    reading = _READING.format(version=facts.table_version, episode_id=example)
    parts = [
        _front_matter(facts),
        f"# {facts.name}\n\n{plain(description(facts))}",
        *([plain(facts.note)] if facts.note else []),
        f"Committed {facts.committed_at:%Y-%m-%d %H:%M:%S} UTC; {facts.bytes / 1e6:,.1f} MB in {len(facts.files):,} "
        f"files. Content digest `{facts.content_digest}`, Merkle root over the episodes `{facts.merkle_root}`.",
        *([f"## What was left out\n\n{SAID}"] if facts.redacted else []),
        f"## What is in it\n\n{_counts(facts)}",
        f"## How diverse is it?\n\n{_diversity(facts)}",
        f"## Policies\n\n{_policies(facts)}",
        f"## Failures\n\n{_failures(facts)}",
        f"## Is it true?\n\n{_verification(facts, carried)}\n\n{_signed(key)}",
        f"## How to read it\n\n{reading.rstrip()}",
        f"## Licence\n\n{_licences(facts)}",
        f"## Limits\n\n{_LIMITS.rstrip()}",
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(facts: Facts) -> str:
    """YAML: every value is written as JSON, which is YAML, too."""
    size = next((name for end, name in _SIZES.items() if facts.episodes < end), "n>1B")
    values: dict[str, Any] = {
        "license": [visible(licence).lower() for licence in facts.licences] or ["unknown"],
        "pretty_name": facts.name,
        "size_categories": [size],
        "task_categories": ["reinforcement-learning"],
        "tags": ["self-play", "delta-lake", *(visible(row["value"]) for row in facts.counts["env_id"])],
    }
    if len(facts.files) <= _LISTED_FILES:  # a pattern of names would take files of other versions, too
        paths = [f"episodes/{file['path']}" for file in facts.files]
        data_files = [{"split": "train", "path": paths}]
        values["configs"] = [{"config_name": "default", "data_files": data_files}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "none" if value is None else plain(value)


def _counts(facts: Facts) -> str:
    names = ("value", "episodes", "steps", "trainable")
    rows = [
        [column, *(group[name] for name in names)]
        for column, groups in facts.counts.items()
        for group in groups
        if column != "licence"
    ]
    return _table(["by", "value", "episodes", "steps", "trainable episodes"], rows)


def _diversity(facts: Facts) -> str:
    """A table for each kind of episodes that there are."""
    heads = {
        "game": ["games", "different", "repeated", *(f"openings of {n} plies" for n in PLIES)],
        "reasoning": [
            "dialogues",
            "different",
            "repeated",
            "prompts",
            "dialogues a prompt",
            "different answers a prompt",
        ],
        "control": ["episodes", "different", "repeated"],
    }
    parts = []
    for kind, rows in facts.diversity.items():
        lines = []
        for row in rows:
            episodes, different = row["episodes"], row["different"]
            line = [row["env_id"], episodes, different, f"{1 - different / episodes:.1%}"]
            if kind == "game":
                line += [row[f"openings_{n}"] for n in PLIES]
            if kind == "reasoning":
                prompts = row["prompts"]
                line += [prompts, f"{episodes / prompts:.1f}", f"{row['answers'] / prompts:.1f}"]
            lines.append(line)
        if lines:
            parts.append(_table(["environment", *heads[kind]], lines))
    return "\n\n".join([*parts, _DIVERSITY])


def _policies(facts: Facts) -> str:
    if not facts.policies:
        return "No episode names a policy."
    rows = [
        [one["policy_id"], one["first_version"], one["last_version"], one["weights"], one["episodes"]]
        for one in facts.policies
    ]
    table = _table(["policy", "first version", "last version", "different weights", "episodes it played in"], rows)
    return f"{table}\n\n`policy_spans` says who made which steps; the table `policies` what each net came from."


def _failures(facts: Facts) -> str:
    if not facts.errors:
        return "None: every episode has status `ok`."
    rows = [[one["status"], one["error"], one["episodes"]] for one in facts.errors]
    return _table(["status", "error", "episodes"], rows)


def _verification(facts: Facts, carried: Carried | None) -> str:
    verified = facts.verified
    checked = "all episodes" if verified.sample is None else f"a sample of {verified.sample:,} (seed {verified.seed})"
    lines = [
        f"Checked before the release: {checked}. {verified.true:,} true, 0 false, {verified.not_checkable:,} not "
        "checkable.",
        *(f"- not checkable ({count:,} episodes): {plain(why)}" for why, count in sorted(verified.reasons.items())),
        "",
        f"{meaning(verified.uncovered)}.",
        "",
        told(verified.uncovered),
    ]
    command = "```\npip install pyarrow deltalake open_spiel\npython verify_corpus.py CORPUS\n```"
    said = (
        "Check it yourself: `verify_corpus.py` is one file without any code of ours around it. It compares the files "
        "with certificate.json, recomputes the digest of every row and replays every game by the rules of OpenSpiel. "
        f"{_weighing(carried)}"
    )
    return "\n".join(lines) + f"\n\n{said}\n\n{command}"


def _weighing(carried: Carried | None) -> str:
    again = "it computes again what the nets said of every move that they searched"
    again += " and of every token that they drew, and makes some searches again"
    if carried is None:
        return f"`verify_weights.py CORPUS --weights FOLDER` needs torch and the weights of the run, too: {again}."
    return (
        f"`verify_weights.py CORPUS` needs torch, too: {again}. The weights lie beside it, each named by the digest by "
        f"which `policy_spans` knows it; of this release: {plain(carried.said)}."
    )


def _signed(key: str | None) -> str:
    listed = (
        "certificate.json lists every file of this release with its sha256, the Merkle root over its episodes, and the "
        "rows of the side tables (but for `uses` and `annotations`)"
    )
    if key is None:
        return f"{listed}. It is not signed: whoever can rewrite all of this folder can rewrite the certificate, too."
    return (
        f"{listed}; certificate.sig signs it with the key `{key}`. Whoever rewrites this folder can sign it with "
        "another key: ask its owner for the key, by another way than this page, and give it as `--key` to "
        "`verify_corpus.py` (which needs `pip install cryptography` for that) or to `selfplay corpus verify --release "
        "NAME`. `selfplay corpus prove ID` writes a proof that one episode is in this release, which can be checked "
        "without the rest of it."
    )


def _licences(facts: Facts) -> str:
    rows = [[row["value"], row["episodes"]] for row in facts.counts["licence"]]
    return _table(["SPDX id", "episodes"], rows) + "\n\nEvery row has its own in `licence`."
