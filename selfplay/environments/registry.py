"""Finds environments for what the user types: an id, the path of a Python file, or an OpenSpiel game string.

Names that come from data (a table's row, a run folder, a release) are looked up by `selfplay.environments.archived`,
which never takes one for a path.

Installed distributions offer environments through the entry-point group `selfplay.envs`. An entry names a module with a
`SPEC`, or a package, all of whose modules are looked at ("_" in front hides one), so that a new file is found without
an edit elsewhere. A file outside any distribution is found by its path, and travels to another machine as source text.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import linecache
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from selfplay.contract import ENV_ID, EnvSpec, GameSpec, TaskFamily, TaskSpec
from selfplay.environments import question_file
from selfplay.errors import UserError
from selfplay.extras import to_install

GROUP = "selfplay.envs"
OPENSPIEL = "openspiel:"
SUPPORTED = (
    "games of OpenSpiel (openspiel:NAME, or a Python file with a GameSpec) and text tasks (a TaskSpec, or a .jsonl "
    "file) can be used today, environments of Gymnasium and PettingZoo cannot"
)
#: Ids and names as Gymnasium ("CartPole-v1", "ALE/Pong-v5") and PettingZoo ("chess_v6") write them.
_ELSEWHERE = re.compile(
    r"(?:gym|gymnasium|pettingzoo)[:/.].*|(?:[\w.-]+/)?[A-Z][\w.-]*-v[0-9]+|(?:pettingzoo[./])?[a-z0-9_.]+_v[0-9]+"
)


@dataclass(frozen=True)
class Source:
    """Where the rules and the declaration of an environment come from.

    kind: "package" (a module of an installed distribution), "file" (a Python file given by its path, self-contained),
      "jsonl" (a file of questions), "openspiel" (an OpenSpiel game string without a file) or "unknown" (a spec made by
      hand).
    name: the module, the file's name, or the game string.
    digest: sha256, hexadecimal, of the source file's bytes in UTF-8; of nothing where there is no file.
    text: the source file; None where there is none, and for questions, which may not be ours to hand on.
    package, version: the distribution that brings it ("" for a file).
    """

    kind: str
    name: str
    digest: str
    text: str | None
    package: str
    version: str


@dataclass(frozen=True)
class Portable:
    """What another process needs to find the same environment: plain text, so it can be pickled or stored.

    reference: an environment id or an OpenSpiel game string, or the name of the file when `text` is given.
    text: source of a one-file environment, which runs where it is unpacked; or the questions of a JSONL file.
    """

    reference: str
    text: str | None = None


@dataclass
class _Known:
    """Environments seen by this process. Sources are by `id(spec)`, with the spec held so that the id stays its own."""

    by_id: dict[str, EnvSpec]
    sources: dict[int, tuple[EnvSpec, Source]]
    files: dict[str, EnvSpec]
    families: dict[str, tuple[TaskFamily, Source]]
    questions: dict[str, tuple[TaskSpec, Portable]]
    strings: set[str]
    earlier: dict[str, TaskSpec]

    def add(self, spec: EnvSpec, source: Source) -> None:
        self.by_id[spec.id] = spec
        self.sources[id(spec)] = (spec, source)


_known = _Known({}, {}, {}, {}, {}, set(), {})


def find(reference: str) -> GameSpec:
    """The game that `reference` names; see `find_any`. Raises `UserError` where nothing is found, or a task."""
    spec = find_any(reference)
    if not isinstance(spec, GameSpec):
        raise UserError(f"{spec.id} is a task, and a game is needed here")
    return spec


def find_task(reference: str) -> TaskSpec:
    """The task that `reference` names; see `find_any`. Raises `UserError` where nothing is found, or a game."""
    spec = find_any(reference)
    if not isinstance(spec, TaskSpec):
        raise UserError(f"{spec.id} is a game, and a task is needed here")
    return spec


def find_any(reference: str) -> EnvSpec:
    """The environment that `reference` names.

    reference: "connect_four" (the newest version), "connect_four-v0", "./my_game.py" or any path that ends in ".py",
      "openspiel:hex(board_size=5)", "reasoning_gym/gcd" (a member of a family of tasks), or "./questions.jsonl" (see
      `selfplay.environments.question_file`). Raises `UserError` where nothing is found.
    """
    if not isinstance(reference, str):
        raise UserError(f"an environment is found by its name, and {_what(reference)} was given; {SUPPORTED}")
    if reference.startswith(OPENSPIEL):
        from selfplay.environments.game import spec_from_string

        spec = spec_from_string(reference)
        _known.strings.add(spec.game)
        return spec
    if question_file.is_reference(reference):
        named = question_file.parsed(reference)
        return _load_questions(question_file.read(named.path), named)
    if reference.endswith(".py") or reference.startswith((".", "/", "~")):
        return _find_file(Path(reference).expanduser())
    specs = _all()
    if reference in specs:
        return specs[reference]
    versions = [spec for spec in specs.values() if spec.name == reference]
    if versions:
        return max(versions, key=lambda spec: spec.version)
    earlier = _before_key(reference)
    if earlier is not None:
        return earlier
    if reference.partition("/")[0] in _known.families:
        return _member(reference)
    raise UserError(_not_found(reference, specs))


def all_specs() -> list[EnvSpec]:
    """Every environment of the installed distributions, and every file loaded by this process, by name and version."""
    return sorted(_all().values(), key=lambda spec: (spec.name, spec.version))


def known(env_id: str) -> EnvSpec | None:
    """The environment with exactly this id: installed, a member of an installed family, or of a file that was loaded.

    None where there is none. Raises `UserError` where a member of a family needs a package, or was left out.
    """
    specs = _all()
    if env_id in specs:
        return specs[env_id]
    earlier = _before_key(env_id)
    if earlier is not None:
        return earlier
    family, _, member = env_id.partition("/")
    if family not in _known.families:
        return None
    name, _, version = member.rpartition("-v")
    of = _known.families[family][0]
    if name in of.members and version != str(of.version_of(name)):
        return None  # of another version of this package
    return _member(env_id)


def _before_key(env_id: str) -> TaskSpec | None:
    """The version of a task from before it had a key, made of the one that has it; None where that declares no such."""
    if env_id in _known.earlier:
        return _known.earlier[env_id]
    name = env_id.rpartition("-v")[0]
    family, _, member = name.partition("/")
    specs: Iterable[EnvSpec] = tuple(_all().values())
    if family in _known.families and member in _known.families[family][0].members:
        specs = (_member(name),)
    for spec in specs:
        if isinstance(spec, TaskSpec) and spec.before_key is not None and spec.before_key[0] == env_id:
            earlier = dataclasses.replace(spec, id=env_id, key=None, before_key=None)
            source = dataclasses.replace(source_of(spec), digest=spec.before_key[1], text=None)
            if source.kind == "jsonl":
                found = _known.questions[spec.id][1]
                reference = f"{found.reference}{'&' if '?' in found.reference else '?'}split=text"
                _known.questions[env_id] = (earlier, Portable(reference, found.text))
            _known.earlier[env_id] = earlier
            _known.sources[id(earlier)] = (earlier, source)
            return earlier
    return None


def named_strings() -> frozenset[str]:
    """The OpenSpiel strings that the user named in this process, without the prefix."""
    return frozenset(_known.strings)


def named() -> list[Portable]:
    """What the user named in this process that is not installed: files of rules or questions, OpenSpiel strings."""
    specs = [spec for spec in all_specs() if source_of(spec).kind in ("file", "jsonl")]
    return [*map(pack, specs), *(Portable(OPENSPIEL + text) for text in sorted(_known.strings))]


def families() -> list[tuple[TaskFamily, Source]]:
    """The families of tasks of the installed distributions, by name, and where each comes from.

    Their members are not among `all_specs` before they are asked for.
    """
    _installed()
    return [_known.families[name] for name in sorted(_known.families)]


def source_of(spec: EnvSpec) -> Source:
    """Where `spec` comes from."""
    if id(spec) in _known.sources:
        return _known.sources[id(spec)][1]
    nothing = hashlib.sha256(b"").hexdigest()
    if isinstance(spec, GameSpec) and spec.register is None:
        return Source("openspiel", spec.game, nothing, None, "open_spiel", metadata.version("open_spiel"))
    return Source("unknown", spec.id, nothing, None, "", "")


def load_source(text: str, name: str) -> EnvSpec:
    """The environment declared by the source text of a one-file environment; runs the text.

    name: the file's name, for messages. The same text is run once a process, however often it is asked for.
    """
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest in _known.files:
        known = _known.files[digest]
        _known.by_id[known.id] = known  # another file may have declared the id meanwhile
        return known
    module = ModuleType(f"selfplay_env_{digest[:16]}")
    module.__file__ = name
    spec = _spec_of(_run(module, text, name), name)
    source = Source("file", Path(name).name, digest, text, "", "")
    owner = _all().get(spec.id)
    if owner is not None and source_of(owner).kind == "package":
        if source_of(owner).digest == digest:
            return owner
        raise UserError(
            f"{name} declares the id {spec.id}, which belongs to {source_of(owner).package}; give it another name"
        )
    _known.files[digest] = spec
    _known.add(spec, source)
    return spec


def _load_questions(text: str, named: question_file.Reference) -> TaskSpec:
    spec = question_file.load(text, named)
    if spec.id not in _known.questions:
        name = Path(named.path).name
        digest = hashlib.sha256(text.encode()).hexdigest()
        _known.questions[spec.id] = (spec, Portable(f"{question_file.PREFIX}{name}{named.options}", text))
        _known.add(spec, Source("jsonl", name, digest, None, "", ""))
    return _known.questions[spec.id][0]


def pack(spec: EnvSpec) -> Portable:
    """What another process needs to find `spec` again. Raises `UserError` for a spec that was made by hand."""
    source = source_of(spec)
    if source.kind == "file":
        return Portable(source.name, source.text)
    if source.kind == "package":
        return Portable(spec.id)
    if source.kind == "jsonl":
        return _known.questions[spec.id][1]
    if isinstance(spec, GameSpec) and spec.id.startswith("openspiel/") and source.kind == "openspiel":
        return Portable(OPENSPIEL + spec.game)
    raise UserError(f"{spec.id} was not found by the registry, so another process cannot find it either")


def unpack_any(portable: Portable) -> EnvSpec:
    """The environment that `pack` described, in this process."""
    if portable.text is not None and question_file.is_reference(portable.reference):
        return _load_questions(portable.text, question_file.parsed(portable.reference))
    if portable.text is not None:
        return load_source(portable.text, portable.reference)
    return find_any(portable.reference)


def unpack(portable: Portable) -> GameSpec:
    """The game that `pack` described, in this process."""
    spec = unpack_any(portable)
    assert isinstance(spec, GameSpec), spec.id
    return spec


def _all() -> dict[str, EnvSpec]:
    _installed()
    return _known.by_id


@cache
def _installed() -> None:
    """Walks the entry points once a process. What cannot be used is a warning that names it, never an error."""
    entries = metadata.entry_points(group=GROUP)
    for entry in sorted(entries, key=lambda e: (e.value != "envs", e.dist.name if e.dist else "", e.name)):
        package = entry.dist.name if entry.dist else ""
        version = entry.dist.version if entry.dist else ""
        try:
            found = list(_walk(entry.value, package))
        except Exception as error:  # someone else's code: whatever it raises must not stop the others
            _warn(entry.value, package, error)
            continue
        for module in found:
            try:
                _add_module(module, package, version)
            except Exception as error:
                _warn(module.__name__, package, error)


def _walk(name: str, package: str) -> Iterator[ModuleType]:
    """The module `name`, or the modules of the package `name` that could be imported."""
    module = importlib.import_module(name)
    if not hasattr(module, "__path__"):
        if not _declares(module):
            raise ImportError("the module has no SPEC")
        yield module
        return
    if _declares(module):
        yield module
    for info in pkgutil.iter_modules(module.__path__, f"{name}."):
        if info.name.rsplit(".", 1)[1].startswith("_"):
            continue
        try:
            if info.ispkg:
                yield from _walk(info.name, package)
            elif _declares(child := importlib.import_module(info.name)):
                yield child
        except Exception as error:
            _warn(info.name, package, error)


def _declares(module: ModuleType) -> bool:
    return hasattr(module, "SPEC") or isinstance(getattr(module, "FAMILY", None), TaskFamily)


def _add_module(module: ModuleType, package: str, version: str) -> None:
    text = Path(module.__file__).read_text(encoding="utf-8") if module.__file__ else ""
    digest = hashlib.sha256(text.encode()).hexdigest()
    source = Source("package", module.__name__, digest, text, package, version)
    if not hasattr(module, "SPEC"):
        family: TaskFamily = module.FAMILY
        other = _known.families.setdefault(family.name, (family, source))[1]
        if other.name != module.__name__:
            raise UserError(f"its family {family.name} is taken by {other.name} of {other.package}")
        return
    spec = _spec_of(module, module.__name__)
    if spec.id in _known.by_id:
        other = source_of(_known.by_id[spec.id])
        if other.name != module.__name__:
            raise UserError(f"its id {spec.id} is taken by {other.name} of {other.package}")
        return
    _known.add(spec, source)


def _member(reference: str) -> TaskSpec:
    """The task of a family that `reference` names, with or without its version; made once a process."""
    family, source = _known.families[reference.partition("/")[0]]
    given = reference.partition("/")[2]
    member, versioned, version = given.rpartition("-v")
    if not versioned or version != str(family.version_of(member)):
        member = given
    env_id = family.id_of(member)
    if member in family.left_out:
        raise UserError(f"{env_id} is left out: {family.left_out[member]}")
    if member not in family.members:
        near = difflib.get_close_matches(member, family.members, 1, 0.5)
        hint = f"; the nearest is {family.id_of(near[0])!r}" if near else ""
        raise UserError(f"there is no environment {reference!r}; {family.name} has {len(family.members)} tasks{hint}")
    try:
        spec = family.make(member)
    except ImportError as error:
        wanted = f": {to_install(family.extra)}" if family.extra else ""
        raise UserError(f"{env_id} needs the package {error.name or error}{wanted}") from None
    if spec.id != env_id:
        raise UserError(f"{source.name} makes {spec.id!r} where {env_id!r} is asked for")
    _known.add(spec, source)
    return spec


def _warn(name: str, package: str, error: Exception) -> None:
    owner = f" of {package}" if package else ""
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    warnings.warn(f"environment {name}{owner} is left out: {reason}", stacklevel=2)


def _find_file(path: Path) -> EnvSpec:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as Python source: {error}") from None
    return load_source(text, str(path))


def _run(module: ModuleType, text: str, name: str) -> ModuleType:
    """Runs `text` as `module`. The lines go to `linecache`, so that tracebacks show them where there is no file."""
    try:
        code = compile(text, name, "exec")
    except (SyntaxError, ValueError) as error:
        where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"{name}{where} is not Python: {error.args[0]}") from None
    except (RecursionError, MemoryError):
        raise UserError(f"{name} is not Python that can be read: it is nested too deep") from None
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    sys.modules[module.__name__] = module
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:  # a script that ends itself, such as one of tests
        del sys.modules[module.__name__]
        line, trace = 0, error.__traceback__
        while trace is not None:
            line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == name else line
            trace = trace.tb_next
        hint = "; an environment file imports installed packages only" if isinstance(error, ImportError) else ""
        raise UserError(f"{name}, line {line}, fails with {type(error).__name__}: {error}{hint}") from error
    return module


def _spec_of(module: ModuleType, name: str) -> EnvSpec:
    spec = getattr(module, "SPEC", None)
    if not isinstance(spec, GameSpec | TaskSpec):
        hint = f"; {SUPPORTED}" if type(spec).__module__.startswith(("gymnasium", "gym.", "pettingzoo")) else ""
        raise UserError(
            f"{name} must define SPEC = GameSpec(…) or TaskSpec(…) of selfplay.contract, and its SPEC is "
            f"{_what(spec)}{hint}"
        )
    return spec


def _what(value: object) -> str:
    """A value that is none of ours, in a few words."""
    kind = type(value)
    own = kind.__module__ in ("builtins", "__main__")
    return f"{value!r:.60}" if own else f"an object of {kind.__module__.partition('.')[0]} ({kind.__name__})"


def _not_found(reference: str, specs: dict[str, EnvSpec]) -> str:
    import pyspiel

    name = reference.rsplit("-v", 1)[0] if ENV_ID.fullmatch(reference) else reference
    versions = sorted(spec.id for spec in specs.values() if spec.name == name)
    if versions:
        return f"there is no environment {reference!r}; there is {', '.join(versions)}"
    if reference.split("(", 1)[0] in pyspiel.registered_names():
        return f"there is no environment {reference!r}, but OpenSpiel has that game: write {OPENSPIEL + reference!r}"
    near = difflib.get_close_matches(name, {spec.name for spec in specs.values()}, 1, 0.5)
    if not near and _ELSEWHERE.fullmatch(reference):
        return f"there is no environment {reference!r}; {SUPPORTED}"
    hint = f"the nearest is {near[0]!r}" if near else f"known are {', '.join(sorted(s.name for s in specs.values()))}"
    return f"there is no environment {reference!r}; {hint}"
