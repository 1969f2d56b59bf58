"""Hydra's lists of defaults without a quarter of their cost: what interpolations in them may name is built when needed.

For every file of a config Hydra makes a config of all options chosen so far, which only those entries of its list of
defaults read that are interpolations (`extractor: ${extractor_of:${dataset}}`). Hardly a file has one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hydra.core.default_element import InputDefault


def build_choices_where_they_are_read() -> None:
    """Have Hydra, in this process, build them only for files with such an entry."""
    from hydra._internal import defaults_list
    from omegaconf import OmegaConf

    create: Any = getattr(defaults_list, "_create_interpolation_map", None)
    if create is None or hasattr(create, "of_hydra"):
        return

    def create_interpolation_map(overrides: Any, entries: list[InputDefault], *more: Any, **named: Any) -> Any:
        # What it returns is read by these entries only, each of which has its final value by now.
        if any(not entry.is_self() and entry.is_interpolation() for entry in entries):
            return create(overrides, entries, *more, **named)
        return OmegaConf.create()

    create_interpolation_map.of_hydra = create  # type: ignore[attr-defined]
    defaults_list._create_interpolation_map = create_interpolation_map
