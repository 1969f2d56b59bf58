"""Configs that cannot be meant: what is refused for lack of a part, and what is warned of before it is paid for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Top-level parts that every run has; those with options are chosen, as sampler=ddim.
_CHOSEN = ("dataset", "schedule", "diffuser", "backbone", "sampler", "guidance", "optimizer", "trainer", "resources")
_PARTS = (*_CHOSEN, "training", "ema", "evaluation", "paths")


def refuse_missing_parts(plain: Mapping[str, Any]) -> None:
    """Raise ValueError, in one line, for a resolved config without a part that every run has, or with no part there."""
    for key in _PARTS:
        part = plain.get(key)
        if not isinstance(part, Mapping):
            said = f"{key} is missing" if key not in plain else f"{key}={'null' if part is None else part} is no part"
            how = f"choose one, as {key}=NAME (--help lists them)" if key in _CHOSEN else "set its keys (--cfg job)"
            raise ValueError(f"{said} of a run: {how}")


def doubts(plain: Mapping[str, Any]) -> Iterator[str]:
    """What a resolved config asks for that is hardly meant, each in a line that names the keys."""
    if plain.get("pretrained") is not None:
        # Nothing is trained.
        return
    training, validation = plain.get("training") or {}, plain.get("validation") or {}
    steps, warmup, batch = (_number(training.get(key)) for key in ("steps", "warmup", "batch_size"))
    if steps is not None and warmup is not None and warmup >= steps > 1:
        yield (
            f"training.warmup={warmup} is not shorter than the training (training.steps={steps}): the learning rate "
            "never reaches optimizer.lr"
        )
    every = _number(validation.get("every"))
    if steps is not None and every is not None and every > steps:
        yield f"validation.every={every} is more than training.steps={steps}: only the last step is validated"
    size = _number((plain.get("dataset") or {}).get("size"))
    if size and batch is not None and batch > 4 * size:
        yield f"training.batch_size={batch} is {batch / size:.0f} times the data (dataset.size={size})"
    if (plain.get("optimizer") or {}).get("lr") == 0:
        yield "optimizer.lr=0 trains nothing"


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
