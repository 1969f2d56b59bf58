"""The config of every cell of a sweep, exactly as Hydra composes it, for one composition per choice of options.

Hydra first builds the config that the chosen options make, and then writes the overrides of values into it, in order.
So options are composed by Hydra, once per distinct choice, and an override of a value is written into a copy: a cell
costs microseconds. That equals what Hydra does only where such a write commutes with everything else, so a value is
*free* only if its key leads, through plain mappings, to a plain value or list that no interpolation of the config
mentions, and if no override that is not free touches the same place. Whatever is not free is left to Hydra, once per
distinct combination: additions, deletions, mappings, keys that do not exist, values with interpolations. A config with
an interpolation that cannot be read at a glance has no free values at all.

Shared between cells: the subtrees below the top-level keys. Equal ones are one object, and so are those that come of
the same overrides of the same subtree, so 10,000 cells cost little memory, and `signature.Signer` signs a subtree
once. They are read only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from diffsweep.sweep.plan.option_keys import OptionConfig, OptionKeys, key_of
from diffsweep.sweep.store.environment import Expressions, environment_expressions
from diffsweep.sweep.store.signature import resolved

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig
    from omegaconf.base import Node

Path = tuple[str, ...]

# A prefix of every path: what is related to it is related to all.
_EVERYWHERE: Path = ()

# Configs as Hydra composed them, 0.1 MB each, that are kept for overrides that are not free.
_KEPT = 256

_KEY = re.compile(r"[A-Za-z_][\w-]*(\.[\w-]+)*", re.ASCII)

# Interpolations whose value is a function of the one key that they name (oc.env: of none; pictures, videos, sounds,
# text_encoder and clip: of where they are; prompts: of prompts; space, latent_shape and vae: of the dataset and the
# autoencoder; checkpoint: of these and of pretrained). recommended may be round one.
_READABLE = re.compile(
    r"(?:\$\{recommended:\w+,)?"
    r"\$\{(?:(\.*)([A-Za-z_]\w*(?:\.\w+)*)"
    r"|oc\.select:([A-Za-z_]\w*(?:\.\w+)*)(?:,[\w.+-]*)?"
    r"|(pictures|videos|sounds|text_encoder|clip):\w+"
    r"|(checkpoint):\w+"
    r"|(prompts):"
    r"|(space|latent_shape|vae):\w*"
    r"|oc\.env:\w+(?:,[\w./+-]*)?)\}\}?",
    re.ASCII,
)


class Composed(NamedTuple):
    """One cell: its overrides, its config, and which option each group has."""

    overrides: Path
    """As the sweeper gave them, without those that the cell's options do not know and others of the sweep do."""
    config: dict[str, Any]
    """Plain, interpolations resolved, without the key `hydra`; its subtrees are shared between cells: read only."""
    choices: dict[str, str | None]
    """As in `hydra.runtime.choices`; shared between cells: read only."""
    environment: Expressions
    """What is recorded in place of values from the environment; shared between cells: read only."""


def compose(
    loader: ConfigLoader,
    master: DictConfig,
    batch: Iterable[Sequence[str]],
    check: Callable[[DictConfig], None] = lambda cfg: None,
) -> Iterator[Composed]:
    """The cells of `batch` in its order: what `loader.load_sweep_config(master, overrides)` gives for each, resolved.

    A word whose key only other options of the batch know is left out, see `option_keys`.

    `loader` is the `config_loader` of a launcher's `HydraContext`, `master` the config that its `setup` is given.
    `check` raises ValueError for a config that is refused for its keys: cells with equal keys are checked once.

    Raises Hydra's own exception for the first cell that Hydra refuses (`mistakes.one_line` shortens it), and ValueError
    for one with a missing value (`???`) or an interpolation that fails.
    """
    every = [tuple(overrides) for overrides in batch]
    composer = _Composer(loader, master, check, every)
    return (composer.cell(overrides) for overrides in every)


class _Override(NamedTuple):
    """One override, parsed once for all cells."""

    text: str
    parsed: Override
    is_option: bool
    is_whole: bool
    """Whether nothing is known about a cell with it."""
    is_plain: bool
    """Whether it sets one value, which no resolver sees, under a key of names and dots."""
    path: Path
    value: Any


class _Base(NamedTuple):
    """What Hydra composed of some overrides, and what is known about writing into it."""

    config: dict[str, Any]
    choices: dict[str, str | None]
    bound: frozenset[Path]
    environment: Expressions
    incomplete: ValueError | None
    free: dict[str, bool]

    def frees(self, override: _Override) -> bool:
        """Whether the override may be written into `config` instead of being composed by Hydra."""
        known = self.free.get(override.text)
        if known is None:
            # Which keys a place may have depends on the class that it names.
            plain = override.is_plain and override.path[-1] != "_target_"
            known = plain and not _related(override.path, self.bound) and self._is_leaf(override.path)
            self.free[override.text] = known
        return known

    def _is_leaf(self, path: Path) -> bool:
        node: Any = self.config
        for key in path:
            if not isinstance(node, dict) or key not in node:
                return False
            node = node[key]
        return not isinstance(node, dict)


class _Composer:
    def __init__(
        self, loader: ConfigLoader, master: DictConfig, check: Callable[[DictConfig], None], batch: Sequence[Path]
    ) -> None:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        self.loader = loader
        self.master = master
        self.check = check
        self.parser = OverridesParser.create(config_loader=loader)
        self.load = lru_cache(_KEPT)(self._load)
        self.batch = batch
        self.option_keys = OptionKeys(self._option_config, self._is_group)
        # Overrides of options -> words that are known not to apply to them.
        self.dropped: dict[Path, set[str]] = {}
        self.overrides: dict[str, _Override] = {}
        self.groups: dict[str, bool] = {}
        self.bases: dict[tuple[Path, Path], _Base] = {}
        # Every subtree is held here, so that its id stays its own.
        self.subtrees: dict[str, Any] = {}
        self.written: dict[tuple[int, Path], Any] = {}

    def cell(self, texts: Path) -> Composed:
        options = tuple(text for text in texts if self._is_option_text(text)) if self.dropped else ()
        dropped = self.dropped.get(options, set())
        kept = tuple(text for text in texts if text not in dropped) if dropped else texts
        try:
            return self._composed(kept)
        except Exception:
            applying = self.option_keys.applying(kept, dict.fromkeys(self.batch))
            if applying == kept:
                raise
            options = tuple(text for text in texts if self._is_option_text(text))
            self.dropped.setdefault(options, set()).update(set(kept) - set(applying))
            return self._composed(applying)

    def _is_option_text(self, text: str) -> bool:
        key = key_of(text)
        return key is not None and self._is_group(key)

    def _option_config(self, options: Path) -> OptionConfig:
        from omegaconf import OmegaConf

        cfg, choices = self.load(options)
        plain: Any = OmegaConf.to_container(cfg, resolve=False)
        return OptionConfig(plain, choices)

    def _composed(self, texts: Path) -> Composed:
        base, free = self._split(texts)
        if base.incomplete is not None:
            raise base.incomplete
        config = dict(base.config)
        below: dict[str, list[_Override]] = {}
        for override in free:
            if len(override.path) == 1:
                config[override.path[0]] = override.value
            else:
                below.setdefault(override.path[0], []).append(override)
        for top, overrides in below.items():
            key = id(config[top]), tuple(override.text for override in overrides)
            if key not in self.written:
                self.written[key] = _write(config[top], overrides)
            config[top] = self.written[key]
        return Composed(texts, config, base.choices, base.environment)

    def _split(self, texts: Path) -> tuple[_Base, list[_Override]]:
        """What Hydra makes of the cell but for its free overrides, and those."""
        overrides = [self._parsed(text) for text in texts]
        if not any(override.is_whole for override in overrides):
            options = tuple(override.text for override in overrides if override.is_option)
            values = [override for override in overrides if not override.is_option]
            # What Hydra refuses, it shall refuse in the words that it has for the cell as a whole.
            with suppress(Exception):
                return self._separated(options, values)
        return self._base(texts), []

    def _separated(self, options: Path, values: list[_Override]) -> tuple[_Base, list[_Override]]:
        """What Hydra makes of the options and of all values that are not free, and the free ones.

        What Hydra writes may bind further values: those that its interpolations read, or that lie above or below it.
        """
        bound: list[_Override] = []
        while True:
            base = self._base(options, tuple(override.text for override in bound))
            paths = [override.path for override in bound]
            met = [override for override in values if not base.frees(override) or _related(override.path, paths)]
            if len(met) == len(bound):
                return base, [override for override in values if override not in bound]
            bound = met

    def _parsed(self, text: str) -> _Override:
        if text not in self.overrides:
            from hydra.core.override_parser.types import OverrideType

            parsed = self.parser.parse_overrides([text])[0]
            key, sweep = parsed.key_or_group, parsed.is_sweep_override()
            value = None if sweep else parsed.value()
            plain_key = _KEY.fullmatch(key) is not None and parsed.package is None
            self.overrides[text] = _Override(
                text=text,
                parsed=parsed,
                # As in hydra._internal.defaults_list.Overrides.
                is_option=not isinstance(value, dict) and self._is_group(key),
                is_whole=sweep or key.partition(".")[0].partition("/")[0] == "hydra",
                is_plain=plain_key and parsed.type is OverrideType.CHANGE and _is_plain(value),
                path=tuple(key.split(".")) if plain_key else _EVERYWHERE,
                value=value,
            )
        return self.overrides[text]

    def _is_group(self, key: str) -> bool:
        if key not in self.groups:
            from omegaconf import OmegaConf

            hydra: Any = OmegaConf.to_container(self.master.hydra.overrides.hydra)
            options = self.loader.get_group_options(key, None, self.master.hydra.job.config_name, hydra)
            self.groups[key] = bool(options) or any(source.is_group(key) for source in self.loader.get_sources())
        return self.groups[key]

    def _base(self, options: Path, values: Path = ()) -> _Base:
        key = options, values
        if key not in self.bases:
            from hydra._internal.config_loader_impl import ConfigLoaderImpl
            from omegaconf import OmegaConf
            from omegaconf.errors import OmegaConfBaseException

            cfg, choices = self.load(options)
            if values:
                cfg = deepcopy(cfg)
                ConfigLoaderImpl._apply_overrides_to_config([self.overrides[text].parsed for text in values], cfg)
            bound = frozenset(_bound(cfg, ()))
            incomplete, environment = None, {}
            try:
                config: Any = resolved(cfg)
                environment = environment_expressions(cfg)
                self.check(cfg)
            except ValueError as error:
                incomplete = error
                try:
                    config = OmegaConf.to_container(cfg, resolve=True)
                except OmegaConfBaseException:
                    config, bound = {}, frozenset([_EVERYWHERE])
            config = {key: self._shared(value) for key, value in config.items()}
            self.bases[key] = _Base(config, self._shared(choices), self._shared(bound), environment, incomplete, {})
        return self.bases[key]

    def _load(self, texts: Path) -> tuple[DictConfig, dict[str, str | None]]:
        from omegaconf import OmegaConf, flag_override

        cfg = self.loader.load_sweep_config(self.master, list(texts))
        choices: Any = OmegaConf.to_container(cfg.hydra.runtime.choices)
        # As in a job: what its config says about Hydra itself is not part of it.
        with flag_override(cfg, ["struct", "readonly"], False):
            del cfg["hydra"]
        return cfg, choices

    def _shared(self, tree: Any) -> Any:
        return self.subtrees.setdefault(repr(tree), tree)


def _related(path: Path, others: Iterable[Path]) -> bool:
    """Whether one of `others` is `path`, or above or below it."""
    return any(path[: len(other)] == other[: len(path)] for other in others)


def _mentions(text: str, at: Path = _EVERYWHERE) -> Iterator[Path]:
    """The keys that the interpolations in `text` read, if that is what lies at the path `at`."""
    if "${" not in text:
        return
    for match in _READABLE.finditer(text):
        up = len(match[1] or "")
        key = match[2] or match[3]
        if up > len(at):
            yield _EVERYWHERE
        elif key:
            yield (*(at[: len(at) - up] if up else ()), *key.split("."))
        elif match[4]:
            yield at[:-1]
        elif match[5]:
            yield ("pretrained",)
            yield ("paths", "runs")
            # Some shift their schedule by the size of what the network sees.
            yield ("dataset",)
            yield ("autoencoder",)
        elif match[6]:
            yield ("prompts",)
        elif match[7]:
            yield ("dataset",)
            yield ("autoencoder",)
    if "${" in _READABLE.sub("", text):
        yield _EVERYWHERE


def _is_plain(value: Any) -> bool:
    """Whether a config holds `value` as it is."""
    if isinstance(value, str):
        return "${" not in value and value != "???"
    if isinstance(value, list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float))


def _bound(node: Node | None, path: Path) -> Iterator[Path]:
    """Where below `path` of the unresolved config a value is more than a value, and what its interpolations read."""
    from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf

    if node is None:
        return
    if node._is_interpolation():
        yield path
        yield from _mentions(str(node._value()), path)
    elif isinstance(node, (DictConfig, ListConfig)) and not node._is_missing() and not node._is_none():
        # A structured config converts and refuses what is written into it.
        plain = OmegaConf.get_type(node) in (dict, list) and node._metadata.element_type is Any
        if not plain or node._get_flag("readonly"):
            yield path
        for key in node.keys() if isinstance(node, DictConfig) else range(len(node)):
            below = node._get_child(key)
            assert not isinstance(below, list)
            yield from _bound(below, (*path, str(key)))
    elif type(node) is not AnyNode or node._is_missing():
        yield path


def _write(tree: dict[str, Any], overrides: Sequence[_Override]) -> dict[str, Any]:
    """`tree` with the overrides below its key written in order; it shares with `tree` what they leave alone."""
    tree = dict(tree)
    for override in overrides:
        node = tree
        for key in override.path[1:-1]:
            node[key] = dict(node[key])
            node = node[key]
        node[override.path[-1]] = override.value
    return tree
