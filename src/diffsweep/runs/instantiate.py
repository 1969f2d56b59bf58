"""From a place in a config to the object that it describes; every mistake names the config's own path.

A `_target_`'s parameters are read before it is called: a name that it does not take, and a value of another type than
the parameter's annotation, are refused in the user's words, for classes of this package and for a user's own alike.
"""

from __future__ import annotations

import inspect
import pydoc
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from diffsweep.conditioners.conditioned import conditioned
from diffsweep.conditioners.conditioner import Conditioner, SendsTokens
from diffsweep.diffusion import Denoiser, Schedule
from diffsweep.diffusion.objective import Objective
from diffsweep.diffusion.target import X0
from diffsweep.former_names import with_current_targets
from diffsweep.interop.denoising_network import DenoisingNetwork
from diffsweep.interop.imported import Imported, check_start
from diffsweep.mistakes import BadValue, alternatives, did_you_mean, one_line, spell


def make(cfg: DictConfig, key: str, **kwargs: Any) -> Any:
    """The object that the config describes at a dotted key; None where it says null.

    Raises:
        ValueError: with the path of what is wrong in front, in the words of the object's constructor, or saying which
            key it does not take, which type a value must have, or which class cannot be loaded and why.
    """
    node = OmegaConf.select(cfg, key)
    if node is None:
        return None
    plain = with_current_targets(OmegaConf.to_container(node, resolve=True))
    node = OmegaConf.create(_checked(plain, key, frozenset(kwargs)))
    try:
        return instantiate(node, **kwargs)
    except InstantiationException as error:
        raise _named(error, key) from error


def make_denoiser(
    cfg: DictConfig,
    dataset: Any,
    schedule: Schedule,
    diffuser: Objective | Imported,
    frozen: Denoiser | None = None,
) -> Denoiser:
    """The untrained model of a config: a training and whoever reads its weights later must build the same.

    A network with settings for the number of its inputs and outputs gets as many as the diffuser asks for, where the
    config leaves them at 1; so diffusers of different needs can be swept side by side. Likewise one that may attend to
    tokens does so if a condition comes as such.

    Args:
        cfg: The config.
        dataset: Of its data.
        schedule: Of its levels.
        diffuser: What the network predicts.
        frozen: The finished model that `backbone.frozen` names; None if it names none.

    Raises:
        ValueError: for what cannot be built, or does not go together.
    """
    conditioners = make_conditioners(cfg)
    needs: dict[str, int | bool] = {"inputs": diffuser.network_inputs, "outputs": diffuser.network_outputs}
    raised = {key: count for key, count in needs.items() if count > 1 and cfg.backbone.get(key) == 1}
    if any(isinstance(one, SendsTokens) and one.tokens for one in conditioners.values()):
        raised |= {"cross_attention": True} if cfg.backbone.get("cross_attention") is False else {}
    if "frozen" in cfg.backbone:
        backbone = _controlled(cfg, frozen, conditioners)
    else:
        backbone = conditioned(make(cfg, "backbone", **raised), conditioners)
    imported = frozen is not None and isinstance(frozen.backbone, DenoisingNetwork)
    # What was imported takes x of unit variance for data of unit variance, whatever the data.
    denoiser = diffuser.build(backbone, schedule, frozen.sigma_data if frozen and imported else dataset.sigma_data)
    if frozen is not None:
        _check_alike(denoiser, frozen, str(cfg.backbone.frozen))
    denoiser.conditional = bool(conditioners)
    return denoiser


def _controlled(cfg: DictConfig, frozen: Denoiser | None, conditioners: Mapping[str, Conditioner]) -> nn.Module:
    """The network that steers a frozen one."""
    network = None if frozen is None else frozen.backbone
    try:
        return make(cfg, "backbone", frozen=network)(conditioners=conditioners)
    except BadValue as error:
        raise error.below("backbone") from error


def _check_alike(denoiser: Denoiser, frozen: Denoiser, name: str) -> None:
    """Refuse another diffuser or schedule than that of the model whose network goes on being used."""
    times = [i / 8 for i in range(1, 8)]
    own, its = ([model.schedule.level(t) for t in times] for model in (denoiser, frozen))
    if isinstance(frozen.backbone, DenoisingNetwork):
        # Its answer is x0, on every path; what is trained must be just that.
        if not isinstance(denoiser.target, X0):
            raise ValueError(f"backbone.frozen={name} was imported, and answers with x0: choose diffuser=x0")
        check_start(frozen.backbone, denoiser.schedule)
        return
    parts = {
        "schedule": own == its,
        "diffuser": [denoiser.target.skip_out(one) for one in its] == [frozen.target.skip_out(one) for one in its],
        "dataset": denoiser.sigma_data == frozen.sigma_data,
    }
    for group, alike in parts.items():
        if not alike:
            raise ValueError(
                f"backbone.frozen={name} was trained with another {group}: choose the {group} that it was trained with"
            )


def make_conditioners(cfg: DictConfig) -> dict[str, Conditioner]:
    """What the model of a config is told, by the names of the entries; empty for nothing. Raises ValueError."""
    made = {str(name): make(cfg, f"condition.{name}") for name in cfg.get("condition") or {}}
    return {name: one for name, one in made.items() if one is not None}


def _named(error: InstantiationException, key: str) -> ValueError:
    """What an object's constructor, or the search for its class, has raised, with the config's path in front."""
    below = re.search(r"^full_key: (.+)$", str(error), re.MULTILINE)
    path = f"{key}.{below.group(1)}" if below else key
    cause = error.__cause__
    if isinstance(cause, BadValue):
        return cause.below(path)
    found = re.match(r"Error locating target '(.*?)'", str(error))
    if found is None:
        return ValueError(f"{path}: {one_line(cause or error)}")
    reason: BaseException = error
    while reason.__cause__ is not None:
        reason = reason.__cause__
    return ValueError(f"{path}._target_={found.group(1)} cannot be loaded: {one_line(reason)}")


# What lies beside the parameters of a `_target_`.
_RESERVED = {"_target_", "_args_", "_partial_", "_convert_", "_recursive_"}


def _checked(node: Any, path: str, given: frozenset[str] = frozenset()) -> Any:
    """`node` with the arguments of its targets as `checked_arguments` gives them."""
    if isinstance(node, list):
        return [_checked(value, f"{path}[{i}]") for i, value in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    node = {key: value if key in given else _checked(value, f"{path}.{key}") for key, value in node.items()}
    if "_target_" not in node or "_args_" in node:
        return node
    try:
        target = pydoc.locate(str(node["_target_"]))
    except Exception:
        # Whoever instantiates it says why it cannot be loaded.
        return node
    return node | checked_arguments(target, node, path, given, partial=bool(node.get("_partial_")))


def checked_arguments(
    target: Any, values: Mapping[str, Any], path: str, given: frozenset[str] = frozenset(), *, partial: bool = False
) -> dict[str, Any]:
    """The arguments that a class or function takes from `values`, whole numbers as int where it wants them.

    Args:
        target: The class or function; one whose signature cannot be read takes everything as it is.
        values: Its arguments by name, and what Hydra's own keys say.
        path: The config's dotted path of `values`.
        given: Names of arguments that come from elsewhere.
        partial: Whether more arguments come later.

    Raises:
        ValueError: for a name that it does not take, one that is missing, or a value of another type than annotated.
    """
    arguments = {name: value for name, value in values.items() if name not in _RESERVED and name not in given}
    try:
        parameters = inspect.signature(target).parameters
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (AttributeError, NameError, TypeError, ValueError):
        return arguments
    takes = {name for name, known in parameters.items() if known.kind in _BY_NAME}
    if not any(known.kind == inspect.Parameter.VAR_KEYWORD for known in parameters.values()):
        for name in arguments.keys() - takes:
            known = did_you_mean(name, takes) or f": choose {alternatives(sorted(takes))}"
            raise ValueError(f"{path} has no setting {name}{known}")
    for name in takes - arguments.keys() - given if not partial else ():
        if parameters[name].default is inspect.Parameter.empty:
            raise ValueError(f"{path}.{name} is missing: {target.__name__} needs it")
    return {
        name: _typed(f"{path}.{name}", value, hints[name]) if name in hints else value
        for name, value in arguments.items()
    }


def settings_at(settings: type, cfg: DictConfig, key: str, *given: str) -> dict[str, Any]:
    """The arguments of a class of settings that a config has at a dotted key, but for those that are `given` elsewhere.

    Raises:
        ValueError: as `checked_arguments`.
    """
    found = OmegaConf.to_container(OmegaConf.select(cfg, key), resolve=True)
    assert isinstance(found, dict)
    values = {str(name): value for name, value in found.items()}
    return checked_arguments(settings, values, key, frozenset(given))


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _typed(name: str, value: Any, hint: Any) -> Any:
    """`value` if the annotation `hint` allows it, as an int where it wants one; raises BadValue."""
    if value == "???" or (isinstance(value, Mapping) and "_target_" in value):
        return value
    hints = list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]
    words: list[str] = []
    objects: list[str] = []
    for one in hints:
        origin = get_origin(one) or one
        if origin is Literal:
            known = get_args(one)
            # true equals 1.
            if any(value == word and isinstance(value, bool) == isinstance(word, bool) for word in known):
                return value
            words += map(spell, known)
        elif origin in (NoneType, None):
            if value is None:
                return value
            words.append("null")
        elif origin is bool:
            if isinstance(value, bool):
                return value
            words.append("true or false")
        elif origin is int:
            if isinstance(value, float) and value.is_integer():
                return int(value)
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            words.append("a whole number")
        elif origin is float:
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**53:
                # Torch takes no whole number of more bits, and a float of this size is as good.
                with suppress(OverflowError):
                    return float(value)
            elif isinstance(value, (int, float)) and not isinstance(value, bool):
                return value
            words.append("a number")
        elif origin in (str, Path):
            if isinstance(value, (str, int, float)) and not isinstance(value, bool):
                return str(value)
            words.append("a path" if origin is Path else "text")
        elif origin in _SEQUENCES:
            if isinstance(value, list):
                return _typed_items(name, value, origin, get_args(one))
            words.append("a list")
        elif (
            origin in (Any, object)
            or not inspect.isclass(origin)
            or issubclass(origin, Enum)
            or (isinstance(value, (list, Mapping)) and issubclass(origin, Collection))
            or (
                isinstance(value, Mapping)
                and is_dataclass(origin)
                and value.keys() <= {one.name for one in fields(origin)}
            )
        ):
            return value
        else:
            objects.append("an object, which has a _target_")
    hint = ""
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", value):
        # Whatever looks like a number: quoted, or from the environment.
        hint = ", and it is text: leave out its quotes, or read it as '${oc.decode:${oc.env:NAME}}'"
    raise BadValue(name, value, f"must be {alternatives(dict.fromkeys(words or objects))}{hint}")


_SEQUENCES = (list, tuple, Sequence, Iterable, Collection)


def _typed_items(name: str, values: list[Any], origin: Any, hints: tuple[Any, ...]) -> list[Any]:
    """The items of a list, each by the annotation of its place."""
    each = origin is not tuple or hints[1:] == (...,)
    if not each and len(hints) != len(values):
        raise BadValue(name, values, f"must be a list of {len(hints)}")
    places = hints[:1] * len(values) if each else hints
    if not places:
        return values
    return [_typed(f"{name}[{i}]", value, hint) for i, (value, hint) in enumerate(zip(values, places, strict=True))]
