"""What a record says in place of values from the environment: the expression `${oc.env:NAME}`, never the value.

A key, a token or a private path that a config takes from the environment would else lie in config.yaml, in plan.json
and in W&B, where others read it. Whoever builds from a recorded config gets the value from his own environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from diffsweep.sweep.store.signature import resolved

if TYPE_CHECKING:
    from omegaconf import DictConfig

# The place of a value in a config: names, and numbers in lists.
Place: TypeAlias = tuple[str | int, ...]
# Place -> the text that is recorded there.
Expressions: TypeAlias = Mapping[Place, str]

# Stand around an expression while a config is resolved; no text of a user's has these characters.
_OPEN, _CLOSE = "\ue000", "\ue001"
_RESOLVER = re.compile(r"\$\{\s*oc\.(env|decode)\s*:")


def recorded(cfg: Mapping[str, Any] | DictConfig) -> dict[str, Any]:
    """A config as it is written down: plain and resolved, but for values from the environment.

    Raises ValueError as `resolved`.
    """
    return Hider()(resolved(cfg), environment_expressions(cfg))


def environment_expressions(cfg: Mapping[str, Any] | DictConfig) -> Expressions:
    """Where a config that resolves has values from the environment, and the text of each, as "${oc.env:HOME}/data"."""
    from omegaconf import OmegaConf

    if not OmegaConf.is_config(cfg):
        return {}
    raw = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)  # type: ignore[arg-type]
    if not any("oc.env" in text for _, text in _texts(raw)):
        return {}
    OmegaConf.register_new_resolver("diffsweep_env", _env, replace=True)
    OmegaConf.register_new_resolver("diffsweep_decode", _decode, replace=True)
    marked = OmegaConf.to_container(OmegaConf.create(_with_own_resolvers(raw)), resolve=True)
    return {place: text.replace(_OPEN, "${").replace(_CLOSE, "}") for place, text in _texts(marked) if _OPEN in text}


class Hider:
    """Writes expressions into many configs: equal subtrees of configs stay one object, as plans expect it.

    So no mapping or list in a config may change for as long as it is used.
    """

    def __init__(self) -> None:
        # With the objects themselves, so that their ids stay their own.
        self._known: dict[tuple[int, int], tuple[Any, Any, Any]] = {}

    def __call__(self, plain: dict[str, Any], expressions: Expressions) -> dict[str, Any]:
        """`plain` with the expressions in their places; what they do not touch is shared with it."""
        top = dict(plain)
        for key in dict.fromkeys(str(place[0]) for place in expressions):
            ids = id(plain[key]), id(expressions)
            if ids not in self._known:
                own = {place[1:]: text for place, text in expressions.items() if place[0] == key}
                self._known[ids] = plain[key], expressions, _written(plain[key], own)
            top[key] = self._known[ids][2]
        return top


def revealed(part: Any) -> Any:
    """A part of a recorded config with the values of this process's environment; as it is if one is not there."""
    if not any("${oc.env:" in text for _, text in _texts(part)):
        return part
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.to_container(OmegaConf.create({"part": part}), resolve=True)["part"]  # type: ignore[index]
    except OmegaConfBaseException:
        return part


def _texts(node: Any, place: Place = ()) -> Iterator[tuple[Place, str]]:
    if isinstance(node, str):
        yield place, node
    elif isinstance(node, Mapping):
        for key, below in node.items():
            yield from _texts(below, (*place, key))
    elif isinstance(node, list):
        for index, below in enumerate(node):
            yield from _texts(below, (*place, index))


def _with_own_resolvers(node: Any) -> Any:
    if isinstance(node, str):
        return _RESOLVER.sub(r"${diffsweep_\1:", node)
    if isinstance(node, Mapping):
        return {key: _with_own_resolvers(below) for key, below in node.items()}
    return [_with_own_resolvers(below) for below in node] if isinstance(node, list) else node


def _written(node: Any, expressions: Expressions) -> Any:
    if () in expressions:
        return expressions[()]
    below: dict[str | int, dict[Place, str]] = {}
    for place, text in expressions.items():
        below.setdefault(place[0], {})[place[1:]] = text
    copy: Any = dict(node) if isinstance(node, Mapping) else list(node)
    for key, own in below.items():
        copy[key] = _written(copy[key], own)
    return copy


_NO_DEFAULT = object()


def _env(name: str, default: object = _NO_DEFAULT) -> str:
    """In place of `oc.env`: the expression itself."""
    if default is _NO_DEFAULT:
        return f"{_OPEN}oc.env:{name}{_CLOSE}"
    text = str(default).replace("\\", "\\\\").replace("'", "\\'")
    return f"{_OPEN}oc.env:{name}," + ("null" if default is None else f"'{text}'") + _CLOSE


def _decode(value: object) -> object:
    """In place of `oc.decode`: the expression itself, if its value comes from the environment."""
    from omegaconf import OmegaConf

    if isinstance(value, str) and _OPEN in value:
        return f"{_OPEN}oc.decode:{value}{_CLOSE}"
    return OmegaConf.create({"text": value, "decoded": "${oc.decode:${text}}"}).decoded
