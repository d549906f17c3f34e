"""The card, Croissant file and certificate of a release whose every text a stranger wrote: they are read as text."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt

from selfplay import store
from selfplay.io import storage
from selfplay.store.release.card import card
from selfplay.store.release.certificate import Facts, Verified, certificate, facts
from selfplay.store.release.croissant import croissant
from selfplay.store.release.markdown import plain
from tests.unit.test_hostile_names import hostile_rows, write_corpus

HEADINGS = ["What is in it", "How diverse is it?", "Policies", "Failures", "Is it true?", "How to read it", "Licence",
            "Limits"]  # fmt: skip
KEYS = {"license", "pretty_name", "size_categories", "task_categories", "tags", "configs"}
#: What each tries: HTML, links and images, a new block, a code span, a table's cell, the end of the front matter, a
#: YAML key, tag, anchor and comment, escapes of terminals, directions of writing, line ends of all kinds.
VALUES = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<!-- ", "&lt;script&gt;", "[a](javascript:alert(1))",
    "![a](https://evil.example/x.png)", "<https://evil.example>", "https://evil.example www.evil.example",
    "a\n\n# Heading\n\n- item", "a\n---\nlicense: mit\n---\n", "a | b | c |\n| d", "`code` ``` \n```\nfence",
    "*b* _i_ __b__ ~~s~~", "'\"\nlicense: mit", "!!python/object/apply:os.system [x]", "&anchor *alias", "{a: b}",
    "a: b # c", "\\", "\\\\|", "{{x}}", "\x1b]0;x\x07\x1b[2J\x9b1m", "\u202e\u2066\u200b", "%00{}", "",
    "a\rb\x0bc\x0cd\x85e\u2028f\u2029g", "- item", "+", "12. item", "3)", "---", "===", "___", "> quote",
)  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """Facts of a corpus that holds every value in every text that may hold any."""
    uri = tmp_path_factory.mktemp("hostile") / "corpus"
    write_corpus(uri, [{**row, "content_digest": ""} for row in rows()])
    reasons = {f"{value} {n}": 1 for n, value in enumerate(VALUES)}
    return facts(store.open(str(uri)), "first", "\n".join(VALUES), Verified(0, len(reasons), reasons, None, None))


def rows() -> list[dict[str, Any]]:
    """An episode for each value, all its texts hostile but those that name files."""
    (path, first), *_ = hostile_rows(["x"], False)
    found = []
    for number, value in enumerate(VALUES):
        row = copy.deepcopy(first)
        row.update(number=number, episode_id=f"{row['run_id']}/{row['slot']}/{row['epoch']}/{number}", status="error")
        row.update(origin=value, licence=value, env_id=f"{value}-v0", error={"kind": value, "message": value})
        row["policy_spans"] = [{**span, "policy_id": value, "digest": value} for span in row["policy_spans"]]
        row["game"] = {**row["game"], "game_string": value}
        found.append(row)
    return found


def test_a_card_is_nothing_but_its_own_markup(written: Facts) -> None:
    text = card(written, "x\n```\n\n<b>/p/1/2", None)
    _, front, body = text.split("---\n", 2)
    told = yaml.safe_load(front)
    assert set(told) == KEYS and told["pretty_name"] == "first" and all(isinstance(one, str) for one in told["tags"])
    assert text.count("\n---\n") == 1 and not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text
    )
    tokens = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable("table").parse(body)
    inline = [child for token in tokens for child in token.children or ()]
    kinds = {token.type for token in (*tokens, *inline)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "em_open", "strong_open"}, kinds
    headings = [tokens[at + 1].content for at, token in enumerate(tokens) if token.type == "heading_open"]
    assert headings == ["first", *HEADINGS]
    assert [token.info for token in tokens if token.type == "fence"] == ["", "python"]
    spans = {child.content for child in inline if child.type == "code_inline"}
    assert not any(value in span for span in spans for value in VALUES if len(value) > 8), spans
    assert not re.search(r"https?://(?!huggingface)\S*evil|www\.evil", body)
    for value in filter(None, VALUES):  # as a note, where a block begins
        assert [token.type for token in MarkdownIt("commonmark").parse(plain(value))][0] == "paragraph_open", value
    shown = "".join(child.content for child in inline)
    assert "<script>alert(1)</script>" in shown and "a | b | c | | d" in shown, "it is shown as what it says"


def test_croissant_and_certificate_hold_them_as_strings(written: Facts) -> None:
    told = json.loads(json.dumps(croissant(written)))
    assert not re.search(r"[<\n\x1b]", told["description"]) and told["name"] == "first"
    assert all(re.fullmatch(r"https://spdx\.org/licenses/[A-Za-z0-9%+._~-]*\.html", one) for one in told["license"])
    places = [one["contentUrl"] for one in told["distribution"] if one["@type"] == "cr:FileObject"]
    assert all(re.fullmatch(r"\.\./\.\./(episodes/[A-Za-z0-9=._/-]+)?", place) for place in places), places
    certified = certificate(written, storage.now(), {}, None, None)
    assert json.loads(json.dumps(certified))["rulesets"] == certified["rulesets"]
    assert {row["value"] for row in certified["counts"]["licence"]} == set(VALUES)
