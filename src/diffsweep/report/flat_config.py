"""A config as dotted keys with their values as text: what is shown of one, and compared between two."""

from __future__ import annotations

import json
from collections.abc import Mapping


def flat_config(config: object, key: str = "") -> dict[str, str]:
    """Dotted key -> value as text of a config.

    Args:
        config: plain mappings, lists and values.
        key: of the config itself in a larger one.
    """
    if isinstance(config, Mapping):
        below = [flat_config(value, f"{key}.{name}" if key else str(name)) for name, value in config.items()]
        return {name: value for one in below for name, value in one.items()}
    return {key: json.dumps(config) if isinstance(config, (list, bool, type(None))) else str(config)}
