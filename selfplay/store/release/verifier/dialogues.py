"""The dialogue of a row, against itself: who was told what, who answered, with which tokens, and how it was judged.

Whether an answer is right needs the task, which is not here. What follows from the row and from the tokenizer that the
corpus keeps is checked: an answer is false here, or it is not decided.
"""

from __future__ import annotations

import hashlib
import json
import math
import re

from selfplay.store.release.verifier.rows import CHANCE, Lie, Row, Unknown

#: Where texts come from that no policy sampled, and how the groups of a run are named, with the origins that they have.
UNSAMPLED = ("solver", "human", "teacher")
GROUPS = {r"r\d{6}-\d{4}": ("cot_rl",), r"w\d{6}": ("solver", "teacher"), r"[hd]\d{6}-.+-\d{4}": ("evaluation",)}
MOST_TOKENIZER_BYTES = 64 * 2**20
PLAIN_TEMPLATE = ("{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}<eos>"
                  "{% endif %}{% endfor %}")  # fmt: skip
#: A token below this log-probability (nats) has probability 0 in float32, and is never drawn.
LEAST_LOGPROB = -104.0


class Pieces:
    """A tokenizer as data: letters, byte-level BPE or SentencePiece. Others are read as nothing: `known` is false."""

    def __init__(self, digest: str, files: str | None) -> None:
        self.known = self.faithful = False
        if files is None or len(files) > MOST_TOKENIZER_BYTES or hashlib.sha256(files.encode()).hexdigest() != digest:
            return
        try:
            given = json.loads(files)
            self._take(json.loads(given["tokenizer.json"]), json.loads(given["tokenizer_config.json"]), given)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self.known = False

    def _take(self, made: Row, settings: Row, given: Row) -> None:
        model, added = made["model"], made["added_tokens"] or []
        self.decoders = made["decoder"].get("decoders", [made["decoder"]])
        kinds = [one["type"] for one in self.decoders]
        self.bytewise = (model["type"], kinds) == ("BPE", ["ByteLevel"])
        listed = model["vocab"]
        self.text_of = ({i: one[0] for i, one in enumerate(listed)} if model["type"] == "Unigram"
                        else {token: piece for piece, token in listed.items()})  # fmt: skip
        self.text_of.update({one["id"]: one["content"] for one in added})
        self.special = {one["id"] for one in added if one["special"]}
        end = settings["eos_token"]
        end = end["content"] if isinstance(end, dict) else end
        self.end = next(token for token, piece in self.text_of.items() if piece == end)
        more = json.loads(given.get("generation_config.json", "{}")).get("eos_token_id")
        self.ends = {self.end, *(more if isinstance(more, list) else [] if more is None else [more])}
        template = given.get("chat_template.jinja") or settings.get("chat_template")
        self.templated = template is not None and template != PLAIN_TEMPLATE
        letters = (model["type"], kinds) == ("WordLevel", ["Fuse"])
        bounded = all(one.get("stop", 0) == 0 and len(one.get("content") or "") <= 16
                      and one.get("pattern", {"String": " "})["String"] for one in self.decoders)  # fmt: skip
        self.known = bounded and set(kinds) <= {"Fuse", "ByteLevel", "ByteFallback", "Replace", "Metaspace", "Strip"}
        plain = made["normalizer"] is None and made["truncation"] is None
        plain = plain and not any(one["lstrip"] or one["rstrip"] for one in added)
        first = made["pre_tokenizer"]
        self.faithful = plain and (  # the tokens that it gives to a text are read as that text again
            first["type"] == "ByteLevel" and not first["add_prefix_space"]
            and set(BYTE_LETTERS) <= set(model["vocab"]) and not model["end_of_word_suffix"]
            and not model["continuing_subword_prefix"] if self.bytewise
            else letters and (first["type"], first["behavior"]) == ("Split", "Isolated")
            and first["pattern"] == {"Regex": "[\\s\\S]"}
        )  # fmt: skip

    def read(self, ids: list[int]) -> str:
        """The text of tokens but for special ones and unknown ones."""
        pieces = [self.text_of[one] for one in ids if one in self.text_of and one not in self.special]
        for decoder in self.decoders:
            pieces = decoded(pieces, decoder)
        return "".join(pieces)


def decoded(pieces: list[str], decoder: Row) -> list[str]:
    """One step from pieces to text."""
    kind = decoder["type"]
    if kind == "Replace":
        return [piece.replace(decoder["pattern"]["String"], decoder["content"]) for piece in pieces]
    if kind == "Metaspace":  # the first piece loses the space that was put before the text
        first = " " if decoder["prepend_scheme"] == "never" else ""
        return [piece.replace(decoder["replacement"], " " if i else first) for i, piece in enumerate(pieces)]
    if kind == "Strip":
        most = decoder["start"]
        return [piece[:most].lstrip(decoder["content"]) + piece[most:] for piece in pieces]
    if kind == "ByteLevel":
        data = b""
        for piece in pieces:
            known = all(letter in BYTE_LETTERS for letter in piece)
            data += bytes(BYTE_LETTERS[letter] for letter in piece) if known else piece.encode()
        return [data.decode("utf-8", "replace")]
    if kind == "ByteFallback":
        out, waiting = [], b""
        for piece in [*pieces, ""]:
            if re.fullmatch("<0x[0-9A-Fa-f]{2}>", piece):
                waiting += bytes([int(piece[3:5], 16)])
                continue
            try:
                out.append(waiting.decode())
            except UnicodeDecodeError:
                out.append("\ufffd" * len(waiting))
            waiting = b""
            out.append(piece)
        return out
    return ["".join(pieces)]


class Tokenizers:
    """The tokenizers that a corpus keeps, by their digests; one is in memory at a time."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.digest, self.pieces = "", Pieces("", None)

    def lies(self) -> list[tuple[str, str]]:
        """Those that do not have the digest by which rows name them."""
        wrong = "the table of tokenizers has files that are not its own"
        return [(f"tokenizer {digest[:12]}", wrong) for digest, files in self.files.items()
                if hashlib.sha256((files or "").encode()).hexdigest() != digest]  # fmt: skip

    def find(self, digest: str) -> Pieces:
        if digest != self.digest:
            self.digest, self.pieces = digest, Pieces(digest, self.files.get(digest))
        return self.pieces


def byte_letters() -> dict[str, int]:
    """Byte-level vocabularies write a byte as the letter of its number, or, where none is seen, as one from 256 on."""
    plain = [number for number in range(256) if 33 <= number <= 126 or 161 <= number <= 255 and number != 173]
    others = [number for number in range(256) if number not in plain]
    return {chr(number): number for number in plain} | {chr(256 + i): number for i, number in enumerate(others)}


BYTE_LETTERS = byte_letters()


def dialogue_lies(row: Row, tokenizers: Tokenizers) -> None:
    """Raises `Lie` for what contradicts how dialogues are recorded, and `Unknown` in the end."""
    record, origin, seats = row["reasoning"], row["origin"], row["seats"]
    turns = record["turns"]
    if row["n_steps"] != len(turns):
        raise Lie("its number of steps is not that of its turns")
    verdict_lies(row)
    if not re.fullmatch("[0-9a-f]{64}", record["tokenizer"] or ""):
        raise Unknown("its tokenizer has no digest: the recorder of selfplay-factory did not write it")
    if row["trainable"] and (row["status"] not in ("ok", "truncated") or origin == "evaluation"):
        raise Lie(f"it is marked trainable with status {row['status']} and origin {origin}")
    if row["status"] not in ("ok", "truncated", "aborted", "error"):
        raise Lie(f"its status is {row['status']}, and no dialogue ends so")
    if (row["status"] == "error") != (row["error"] is not None):
        raise Lie(f"its status is {row['status']}, and its error {row['error']}")
    if row["seed"] != record["problem_seed"] or not row["env_id"].endswith(f"-v{row['env_version']}"):
        raise Lie("its seed or version is not that of its problem and environment")
    for pattern, origins in GROUPS.items():
        if re.fullmatch(pattern, record["group_id"] or "") and origin not in origins:
            raise Lie(f"its group {record['group_id']} is of origin {' or '.join(origins)}, and its own is {origin}")
    if record["sample_index"] < 0 or (record["sample_index"] and origin in UNSAMPLED):
        raise Lie(f"it is sample {record['sample_index']} of its group, and its origin {origin}")
    sampling_lies(row)
    wrote = {}
    for span in row["policy_spans"] or ():
        for place in range(span["first_step"], span["last_step"] + 1):
            if place in wrote or not 0 <= place < len(turns) or turns[place]["role"] != "assistant":
                raise Lie(f"a policy span covers turn {place}, which another covers, or which no policy wrote")
            wrote[place] = span
    pieces = tokenizers.find(record["tokenizer"])
    line, before = {seat: list[int]() for seat in range(seats)}, None
    for place, turn in enumerate(turns):
        seat = turn["seat"]
        if turn["role"] == "chance":
            chance_lies(row, place, turn)
            continue
        if seat not in line:
            raise Lie(f"turn {place} is by seat {seat} of {seats}")
        if turn["parent"] != (line[seat][-1] if line[seat] else None):
            raise Lie(f"turn {place} continues turn {turn['parent']}, and not the turn of its seat before it")
        if before is None and (seat != 0 or turn["role"] == "assistant"):
            raise Lie("the dialogue does not begin with what seat 0 was told")
        if before is not None and before["role"] != "assistant" and before["seat"] != seat:
            raise Lie(f"turn {place} is of seat {seat}, and seat {before['seat']} is to answer")
        before = turn
        line[seat].append(place)
        if turn["role"] == "assistant":
            answer_lies(row, place, turn, wrote.get(place), pieces)
            prompt_lies(turns, line[seat], place, pieces)
        elif turn["role"] not in ("system", "user", "tool") or turn["text"] is None:
            raise Lie(f"turn {place} has the role {turn['role']!r}, or no text")
        elif turn["suffix_ids"] or turn["token_ids"] or turn["logprobs"] or turn["loss_mask"] or turn["finish_reason"]:
            raise Lie(f"turn {place} was told, and has tokens")
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if record["answer"] != (answers[-1]["text"] if answers else None):
        raise Lie("its answer is not the last text that was answered")
    if row["status"] == "ok" and (not answers or turns[-1]["role"] != "assistant"):
        raise Lie("its status is ok, and nothing was answered in the end")
    if row["status"] == "ok" and any(turn["finish_reason"] == "length" for turn in answers):
        raise Lie("its status is ok, and an answer was cut at a limit")
    split_lies(row, record)
    framed = ", nor its prompts rendered by their chat template" * (pieces.known and pieces.templated)
    raise Unknown(f"true as far as this file can see; the answer itself was not judged again{framed}: that needs the "
                  "task, and `selfplay corpus verify`")  # fmt: skip


def split_lies(row: Row, record: Row) -> None:
    """A problem has the digest of what was asked; by it one in twenty is of no training side, whatever its task is."""
    digest, group = record["problem_digest"], record["group_id"] or ""
    if not re.fullmatch("[0-9a-f]{64}", digest or ""):
        raise Lie(f"the digest of its problem is {digest!r}")
    learned = re.fullmatch(r"r\d{6}-\d{4}|w\d{6}", group)
    measured = int(digest[8:16], 16) % 20 == 0  # or held out, in one of so many as the task says
    if measured and (learned or (row["trainable"] and row["schema_version"] > 1)):  # nobody asked that before
        raise Lie("it is to be learned from, and its problem, by its digest, is held out or for development")
    if not measured and re.fullmatch(r"d\d{6}-.+-\d{4}", group):
        raise Lie(f"its group {group} is of problems for development, and its problem, by its digest, is not")
    turns = [turn for turn in record["turns"] if turn["role"] != "chance"]
    answered = [place for place, turn in enumerate(turns) if turn["role"] == "assistant"]
    asked = [[turn["role"], turn["text"]] for turn in turns[: answered[0] if answered else None]]
    told = hashlib.sha256(json.dumps(asked, ensure_ascii=False).encode()).hexdigest()
    if told[16:] != digest[16:]:  # the first digits may be of a key, which twins of the problem share
        raise Lie("the digest of its problem is not that of what was asked")


def verdict_lies(row: Row) -> None:
    """One verdict a seat, in order; only a verdict that could be given has a reward, and the returns are these."""
    verdicts = row["verdicts"] or []
    if len(verdicts) != row["seats"]:
        raise Lie(f"it has {len(verdicts)} verdicts for {row['seats']} seats")
    for verdict in verdicts:
        state, failed = verdict["state"], verdict["state"] == "unverifiable"
        if state not in ("accepted", "rejected", "unverifiable") or not 0 <= verdict["seat"] < row["seats"]:
            raise Lie(f"a verdict is {state!r} of seat {verdict['seat']}")
        if (verdict["reward"] is None) != failed or not math.isfinite(verdict["reward"] or 0):
            raise Lie(f"a verdict is {state} and its reward is {verdict['reward']}")
        if bool(verdict["error"]) != failed:
            raise Lie(f"a verdict is {state} and its error is {verdict['error']!r}")
        for one in verdict["criteria"] or ():
            if (one["score"] is None) != failed:
                raise Lie(f"criterion {one['criterion']} of a verdict that is {state} has the score {one['score']}")
            if not failed and not (one["low"] <= one["score"] <= one["high"] and abs(one["score"]) <= 1e12):
                raise Lie(f"criterion {one['criterion']} has the score {one['score']}, outside its range")
    rewards = [verdict["reward"] for verdict in verdicts]
    if row["returns"] is not None and row["returns"] != rewards:
        raise Lie(f"its returns are {row['returns']}, and its verdicts give {rewards}")
    if row["returns"] is None and rewards and None not in rewards:
        raise Lie(f"it has no returns, and its verdicts give {rewards}")
    if row["trainable"] and (not rewards or None in rewards):
        raise Lie("it is marked trainable, and a seat has no verdict")
    if [verdict["seat"] for verdict in verdicts] != list(range(row["seats"])):
        raise Lie("it does not have one verdict for every seat")
    if not re.fullmatch("[0-9a-f]{64}", row["reasoning"]["tokenizer"] or ""):
        return  # by another program, which may have other verifiers
    for one in (one for verdict in verdicts for one in verdict["criteria"] or ()):
        if (one["verifier_id"], one["verifier_version"]) != (row["env_id"], str(row["env_version"])):
            raise Lie(f"a verdict is by {one['verifier_id']} version {one['verifier_version']}, not by {row['env_id']}")


def sampling_lies(row: Row) -> None:
    """The settings that tokens were drawn with; answers that nobody drew have none."""
    record, origin = row["reasoning"], row["origin"]
    settings = (record["temperature"], record["top_k"], record["top_p"])
    if origin in ("solver", "human"):
        if settings != (None, None, None) or row["status"] != "ok":
            raise Lie(f"its origin is {origin}, and its status {row['status']} or its settings of sampling are others'")
    elif settings[0] is None or not 0 <= settings[0] < math.inf or (settings[1] is not None and settings[1] < 1):
        raise Lie(f"its temperature is {settings[0]}, its top_k {settings[1]}")
    elif settings[2] is not None and not 0 < settings[2] <= 1:
        raise Lie(f"its top_p is {settings[2]}")


def chance_lies(row: Row, place: int, turn: Row) -> None:
    """The choice of the problem stands before everything else."""
    said = json.loads(turn["text"])
    if place or turn["seat"] != CHANCE or turn["parent"] is not None or turn["token_ids"] or turn["suffix_ids"]:
        raise Lie(f"turn {place} is of chance, and not the choice of the problem")
    if set(said) != {"difficulty", "probability"} or said["difficulty"] != row["reasoning"]["difficulty"]:
        raise Lie("the choice of its problem is of another difficulty")
    if not 0 < said["probability"] <= 1 or row["origin"] in (*UNSAMPLED, "evaluation"):
        raise Lie(f"its problem was chosen with probability {said['probability']}, and its origin is {row['origin']}")


def answer_lies(row: Row, place: int, turn: Row, span: Row | None, pieces: Pieces) -> None:
    """An answer: who wrote it, what it was sampled with, what may be learned from it, what its tokens say."""
    ids, logprobs, mask, origin = turn["token_ids"] or [], turn["logprobs"], turn["loss_mask"] or [], row["origin"]
    if span is None or span["seat"] != turn["seat"]:
        raise Lie(f"the answer in turn {place} has no policy span of its seat")
    endpoint = span["policy_id"].startswith("endpoint:")
    if origin in ("solver", "human"):
        if (span["policy_id"], span["version"], span["digest"]) != (origin, row["env_version"], None):
            raise Lie(f"turn {place}: its origin is {origin}, and {span['policy_id']} wrote it")
        if turn["finish_reason"] != "stop":
            raise Lie(f"turn {place} is of origin {origin} and ended by {turn['finish_reason']!r}")
    if (logprobs is None) != (endpoint or origin in UNSAMPLED) and (origin in (*UNSAMPLED, "cot_rl", "evaluation")):
        raise Lie(f"turn {place} by {span['policy_id']}, origin {origin}: log-probabilities are there, or are not")
    if len(mask) != len(ids) or len(set(mask)) > 1:
        raise Lie(f"turn {place} has {len(ids)} tokens, and its loss_mask is not one answer for all of them")
    if mask and mask[0] and (origin == "evaluation" or (endpoint and origin != "teacher")):
        raise Lie(f"turn {place} is to be learned from, and its origin is {origin}")
    if mask and not mask[0] and (origin in UNSAMPLED or (origin, span["policy_id"]) == ("cot_rl", row["run_id"])):
        raise Lie(f"turn {place} is not to be learned from, and its origin is {origin}")
    reason = turn["finish_reason"]
    if not reason or (logprobs is not None and reason not in ("stop", "length")):
        raise Lie(f"turn {place} ended by {reason!r}")
    if logprobs is not None:
        if len(logprobs) != len(ids) or not ids or not all(LEAST_LOGPROB <= one <= 1e-3 for one in logprobs):
            raise Lie(f"turn {place} has tokens without a possible log-probability")
        if row["reasoning"]["temperature"] == 0 and any(logprobs):
            raise Lie(f"turn {place}: the likeliest tokens were taken, and one was not certain")
        if not re.fullmatch("[0-9a-f]{64}", span["digest"] or ""):
            raise Lie(f"turn {place} was sampled, and its policy has no digest of weights")
    if pieces.known and (logprobs is not None or pieces.faithful):
        said = ids[:-1] if logprobs is None and ids and ids[-1] in pieces.ends else ids
        if pieces.read(said) != turn["text"]:
            raise Lie(f"turn {place}: its tokens spell another text")
        if pieces.ends & set(ids[:-1]):
            raise Lie(f"turn {place} goes on after its end")


def prompt_lies(turns: list[Row], line: list[int], place: int, pieces: Pieces) -> None:
    """The tokens before an answer: those of all that its seat was told since its last one."""
    if not pieces.known or not pieces.faithful or pieces.templated:
        return
    ids, told = list(turns[place]["suffix_ids"] or []), []
    for index in (line[i] for i in range(len(line) - 2, -1, -1)):
        if turns[index]["role"] == "assistant":
            last = turns[index]["token_ids"] or []
            if (not last or last[-1] not in pieces.ends) and ids[:1] == [pieces.end]:
                del ids[0]
            break
        told.append(turns[index]["text"])
    else:
        while pieces.bytewise and ids and ids[0] in pieces.special and ids[0] != pieces.end:
            del ids[0]
    if pieces.read(ids) != "".join(reversed(told)) or pieces.special & set(ids):
        raise Lie(f"turn {place}: the tokens before it do not spell what its seat was told")


def walk_lies(row: Row) -> None:
    """A walk in a control environment: its numbers fit its steps, and its return is the sum of its rewards."""
    walk, returns = row["control"], row["returns"]
    steps = len(walk["rewards"])
    shapes = (walk["observation_shape"], walk["action_shape"])
    if row["n_steps"] != steps or row["seats"] != 1 or max(map(len, shapes)) > 32:
        raise Lie(f"it has {steps} rewards, {row['n_steps']} steps and {row['seats']} seats, or shapes of many numbers")
    for name, shape, count in (("observations", "observation_shape", steps + 1), ("actions", "action_shape", steps)):
        wanted = count * math.prod(walk[shape])
        if min(walk[shape], default=1) < 0 or len(walk[name]) != wanted:
            raise Lie(f"it has {len(walk[name])} numbers of {name}, and {wanted} follow from its steps and shapes")
    if not all(map(math.isfinite, walk["rewards"])):
        raise Lie("a reward is not finite")
    if returns is not None and (len(returns) != 1 or not math.isclose(
            returns[0], math.fsum(walk["rewards"]), rel_tol=1e-9, abs_tol=1e-9)):  # fmt: skip
        raise Lie(f"its returns are {returns}, and its rewards sum to {math.fsum(walk['rewards'])}")
    discrete = not walk["action_shape"]
    if discrete and not all(action == int(action) for action in walk["actions"]):
        raise Lie("a discrete action is no whole number")
    logprobs = walk["logprobs"]
    if logprobs is not None and len(logprobs) != steps:
        raise Lie(f"it has {len(logprobs)} log-probabilities for {steps} actions")
    if logprobs is not None and not all(one < math.inf and (one <= 1e-3 or not discrete) for one in logprobs):
        raise Lie("a log-probability is none")
    after = 0
    for span in sorted(row["policy_spans"] or (), key=lambda span: span["first_step"]):
        if span["first_step"] != after or span["last_step"] < after or span["seat"] != 0:
            raise Lie(f"step {after} has no policy span, or two")
        after = span["last_step"] + 1
    if after not in (0, steps):
        raise Lie(f"its policy spans end after {after} of {steps} steps")
    if row["trainable"] and row["status"] not in ("ok", "truncated"):
        raise Lie(f"it is marked trainable with status {row['status']}")
