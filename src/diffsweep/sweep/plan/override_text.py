"""Overrides as text that Hydra reads back as the same values: what a sweeper hands to whoever composes its cells."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def value_text(value: Any) -> str:
    """What may stand behind `=` for a value as Hydra has parsed it.

    As Hydra's own sweeper writes it, but in quotes where Hydra would not read that back: text that looks like a number,
    as `str(5)` gives, and interpolations that contain quotes.
    """
    from hydra.core.override_parser.types import Quote, QuotedString, Transformer

    if isinstance(value, list):
        return f"[{','.join(map(value_text, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{value_text(key)}:{value_text(below)}' for key, below in value.items())}}}"
    text = str(Transformer.str(value))
    if isinstance(value, str) and not _is_read_as(text, value):
        return QuotedString(value, Quote.single).with_quotes()
    return text


def _is_read_as(text: str, value: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"key={text}").value() == value
    except HydraException:
        return False


def params_text(params: Any) -> list[str]:
    """`hydra.sweeper.params` as overrides; interpolations in `params` are kept, for each cell has its own value."""
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(params, resolve=False) if OmegaConf.is_config(params) else params
    given: Mapping[str, Any] = plain or {}
    return [f"{key}={value if isinstance(value, str) else value_text(value)}" for key, value in given.items()]


def grid(overrides: Sequence[Override]) -> list[list[str]]:
    """The overrides of every cell that parsed overrides span, the last of them varying fastest."""
    axes = ([f"{one.get_key_element()}={value_text(value)}" for value in _values(one)] for one in valid(overrides))
    return [list(cell) for cell in itertools.product(*axes)]


def valid(overrides: Sequence[Override]) -> list[Override]:
    """Those that count: of a key that is given twice the last one, in the place of the first.

    Mappings are all kept, in their order, for Hydra merges them into what is there.
    """
    merging = [any(isinstance(value, dict) for value in _values(override)) for override in overrides]
    found: dict[tuple[str, int | None], Override] = {}
    for place, override in enumerate(overrides):
        key = override.get_key_element(), place if merging[place] else None
        if any(merging):
            found.pop(key, None)
        found[key] = override
    return list(found.values())


def _values(override: Override) -> list[Any]:
    if override.is_interval_sweep():
        return []
    return list(override.sweep_iterator()) if override.is_sweep_override() else [override._value]
