"""Parameters that a constructor has and its YAML leaves out: `optimizer.amsgrad=true` sets one as any other key."""

from __future__ import annotations

from contextlib import suppress
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from diffsweep.former_names import REPLACED_KEYS
from diffsweep.mistakes import did_you_mean
from diffsweep.sweep.plan.constructor import parameters
from diffsweep.sweep.plan.unread_keys import known_keys

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig


# Whether the config is composed from which a sweep is launched.
_launching: ContextVar[bool] = ContextVar("launching", default=False)


def accept_added_parameters() -> None:
    """Have Hydra, in this process, add a key to a mapping if the `_target_` there takes it.

    For any other key that is not there it raises ValueError with the nearest ones. The config from which a sweep is
    launched leaves such a key out: it may belong to another option than the default, and every cell is composed with
    it. Hydra has no other place for that than the functions that compose a config and write overrides into it.
    """
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.errors import ConfigCompositionException
    from hydra.types import RunMode
    from omegaconf.errors import ConfigAttributeError, ConfigKeyError

    write = ConfigLoaderImpl._apply_overrides_to_config
    if getattr(write, "accepts_added_parameters", False):
        return

    def write_or_add(overrides: list[Override], cfg: DictConfig) -> None:
        for override in overrides:
            try:
                write([_adding(override, cfg)], cfg)
            except ConfigCompositionException as error:
                if isinstance(error.__cause__, ConfigKeyError | ConfigAttributeError):
                    if _launching.get() and not override.key_or_group.startswith("hydra"):
                        continue
                    raise ValueError(_absent(override.key_or_group, cfg)) from error
                raise

    load = ConfigLoaderImpl.load_configuration

    def load_configuration(self: Any, *args: Any, **kwargs: Any) -> DictConfig:
        # Hydra composes the cells of a sweep with RunMode.RUN.
        token = _launching.set(kwargs.get("run_mode") == RunMode.MULTIRUN)
        try:
            return load(self, *args, **kwargs)
        finally:
            _launching.reset(token)

    ConfigLoaderImpl.load_configuration = load_configuration  # type: ignore[method-assign]
    write_or_add.accepts_added_parameters = True  # type: ignore[attr-defined]
    ConfigLoaderImpl._apply_overrides_to_config = staticmethod(write_or_add)  # type: ignore[method-assign]


def _absent(key: str, cfg: DictConfig) -> str:
    known: list[str] = []
    with suppress(ValueError):
        known = known_keys(cfg)
    if (now := REPLACED_KEYS.get(key)) is not None:
        return f"there is no key {key} any more: {now}"
    if key.startswith("hydra."):
        known = [f"hydra.{name}.{one}" for name in ("sweeper", "launcher") for one in cfg.hydra.get(name) or {}]
    hint = did_you_mean(key, known)
    return f"there is no key {key}{hint} (--cfg {'hydra' if key.startswith('hydra') else 'job'} shows all keys)"


def _adding(override: Override, cfg: DictConfig) -> Override:
    from hydra.core.override_parser.types import OverrideType
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    place, _, key = override.key_or_group.rpartition(".")
    if override.type is not OverrideType.CHANGE or override.package is not None or not place:
        return override
    try:
        node: Any = OmegaConf.select(cfg, place)
    except OmegaConfBaseException:
        return override
    if not OmegaConf.is_dict(node) or key in node or not isinstance(node.get("_target_"), str):
        return override
    taken = parameters(node["_target_"])
    return replace(override, type=OverrideType.FORCE_ADD) if taken is not None and key in taken else override
