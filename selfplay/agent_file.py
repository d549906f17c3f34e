"""What `agent.json` of a run folder says, checked before anything is built of it: the folder may be a stranger's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from selfplay.contract import GameSpec
from selfplay.environments import archived, registry
from selfplay.environments.game import Game
from selfplay.errors import Damaged, UserError
from selfplay.nets.config import SCHEMA as NET_SCHEMA
from selfplay.nets.config import NetConfig
from selfplay.search import SearchConfig

#: Rises when the description of a run's net changes so that older code would misread it.
SCHEMA = 1
_MOST_IMAGES = 1024
_NET, _SEARCH = TypeAdapter(NetConfig), TypeAdapter(SearchConfig)


@dataclass(frozen=True)
class AgentFile:
    """A run's agent besides its weights.

    policy_id: the run's series of nets. reference, source: of its game, see `registry.Portable`. env_id: the game's id.
    images: symmetric images of a position that its evaluation is averaged over, itself included.
    """

    policy_id: str
    env_id: str
    reference: str
    source: str | None
    net: NetConfig
    search: SearchConfig
    images: int

    def spec(self, trust: bool) -> GameSpec:
        """The game. trust: run the source that the folder keeps, and load any OpenSpiel string that it names.

        Without `trust` only installed games, OpenSpiel's own within bounds, and files that this process has loaded
        before, of exactly this source, are found; nothing is opened by the name in the folder. Raises `UserError`.
        """
        if self.source is None and trust and self.reference.startswith(registry.OPENSPIEL):
            return registry.find(self.reference)
        if self.source is None:
            spec = archived.find_reference(self.reference)
        elif trust:
            spec = registry.unpack_any(registry.Portable(self.reference, self.source))
        else:
            known = registry.known(self.env_id)
            if known is None or registry.source_of(known).text != self.source:
                raise UserError(
                    f"{self.env_id!r} came as a file of its own, {self.reference!r}: name yours (--env, or "
                    "selfplay.environments.registry.find), or trust the copy that the run keeps (--trust, or "
                    "trust=True)"
                )
            spec = known
        if not isinstance(spec, GameSpec):
            raise UserError(f"{spec.id} is a task, and an agent plays a game")
        return spec


def parse(data: Any, source: str) -> AgentFile:
    """The description in `agent.json`, as `json.loads` gave it. source: names the file in the sentences of errors.

    Raises `UserError`. Everything that decides how much is built of it is bounded here.
    """
    about = _object(data, source, "it")
    schema = _typed(about, "schema", int, source)
    if schema > SCHEMA:
        raise UserError(f"{source} was written by a newer version (schema {schema}); upgrade the package")
    env = _object(about.get("env"), source, "env")
    net, search = _object(about.get("net"), source, "net"), _object(about.get("search"), source, "search")
    images = about.get("images", 1)
    if type(images) is not int or not 1 <= images <= _MOST_IMAGES:
        raise _wrong(source, f"images is not a whole number from 1 to {_MOST_IMAGES}")
    if env.get("source") is not None and not isinstance(env["source"], str):
        raise _wrong(source, "env.source is not text")
    known_schema = net.get("schema", 0)
    if type(known_schema) is int and known_schema > NET_SCHEMA:
        raise UserError(f"{source}: its net has schema {known_schema}, newer than {NET_SCHEMA}; upgrade the package")
    return AgentFile(
        policy_id=_typed(about, "policy_id", str, source),
        env_id=_typed(env, "id", str, source),
        reference=_typed(env, "reference", str, source),
        source=env.get("source"),
        net=_settings(_NET, NetConfig, {key: value for key, value in net.items() if key != "schema"}, source, "net"),
        search=_settings(_SEARCH, SearchConfig, search, source, "search"),
        images=images,
    )


def net_of(text: str, source: str) -> NetConfig:
    """The net that such JSON describes, checked as in `parse`. Raises `UserError`."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise _wrong(source, "its net is not JSON") from None
    net = _object(data, source, "net")
    return cast(NetConfig, _settings(_NET, NetConfig, {k: v for k, v in net.items() if k != "schema"}, source, "net"))


def check_fits(about: AgentFile, game: Game, source: str) -> None:
    """Raises `UserError` where the net is not of this game: its input and its actions are the game's."""
    wanted, given = (game.encoder.shape, game.num_actions), (about.net.input_shape, about.net.num_actions)
    if wanted != given:
        raise UserError(
            f"{source}: its net reads {given[0]} and chooses among {given[1]} actions, and {game.spec.id} shows "
            f"{wanted[0]} and has {wanted[1]}"
        )


def _settings(adapter: TypeAdapter[Any], model: type, given: Mapping[str, Any], source: str, what: str) -> Any:
    unknown = set(given) - set(model.__dataclass_fields__)  # type: ignore[attr-defined]
    if unknown:
        name = min(map(str, unknown))
        raise UserError(f"{source}: its {what} has the unknown setting {name!r:.60}; upgrade the package")
    try:
        return adapter.validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or "the whole"
        raise _wrong(source, f"{what}.{name}: {first['msg'][:1].lower()}{first['msg'][1:]}") from None
    except UserError as error:
        raise _wrong(source, str(error)) from None


def _object(value: Any, source: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(source, f"{what} is not an object")
    return value


def _typed(data: Mapping[str, Any], name: str, kind: type, source: str) -> Any:
    if type(data.get(name)) is not kind:
        raise _wrong(source, f"{name} is missing or not {'text' if kind is str else 'a whole number'}")
    return data[name]


def _wrong(source: str, what: str) -> Damaged:
    return Damaged(source, f"it does not describe an agent: {what}")
