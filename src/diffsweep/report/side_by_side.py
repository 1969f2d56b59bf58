"""Two cells, or the cells of two trainings, side by side: what differs in how they were made, and in their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from diffsweep.report.console import lines, show, sign_of
from diffsweep.report.flat_config import flat_config
from diffsweep.report.format import count, duration, things, with_error
from diffsweep.report.overrides import is_neutral
from diffsweep.report.statistics import Difference, difference, mean_difference
from diffsweep.sweep.store.result import Result, larger_is_better
from diffsweep.sweep.store.signature import INFERENCE

# Pixels between the pictures of both.
_GAP = 24


@dataclass(frozen=True)
class Pair:
    """Two cells that are compared.

    Attributes:
        a: the one.
        b: the other.
        a_config: resolved config of the one.
        b_config: resolved config of the other.
    """

    a: Result
    b: Result
    a_config: Mapping[str, Any]
    b_config: Mapping[str, Any]

    def settings(self) -> list[tuple[str, str, str]]:
        """(what, a's, b's) of each option and value that differs and can change a result; "-" where one has none."""
        options = [
            (group, self.a.option(group) or "-", self.b.option(group) or "-")
            for group in dict.fromkeys((*self.a.options, *self.b.options))
        ]
        first, second = flat_config(self.a_config), flat_config(self.b_config)
        values = [(key, first.get(key, "-"), second.get(key, "-")) for key in dict.fromkeys((*first, *second))]
        # The class of an option is told by the option's name.
        shown = [row for row in values if not is_neutral(row[0]) and not row[0].endswith("_target_")]
        return [row for row in (*options, *shown) if row[1] != row[2]]

    @property
    def names(self) -> list[str]:
        """Of the numbers that both have, the main one first."""
        common = [name for name in self.a.measured if self.b.has(name)]
        return sorted(common, key=lambda name: name != self.a.metric)


def pairs(a: Sequence[tuple[Result, Mapping[str, Any]]], b: Sequence[tuple[Result, Mapping[str, Any]]]) -> list[Pair]:
    """The cells of two trainings that were sampled and scored alike, in the order of those of `a`."""
    others = {_inference(config): (result, config) for result, config in b}
    found = ((result, config, others.get(_inference(config))) for result, config in a)
    return [Pair(result, other[0], config, other[1]) for result, config, other in found if other is not None]


def _inference(config: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    flat = flat_config({key: value for key, value in config.items() if key in INFERENCE})
    return tuple((key, value) for key, value in sorted(flat.items()) if not is_neutral(key))


def show_pair(console: Console, pair: Pair) -> None:
    """Print two cells side by side: settings that differ, and every number with the difference of both."""
    a, b, sign = pair.a, pair.b, sign_of(console)
    table = _table(["", f"A  {a.cell}", f"B  {b.cell}"])
    for row in pair.settings():
        table.add_row(*map(Text, row))
    if not table.row_count:
        table.add_row("settings", "the same", "")
    table.add_row("network calls", count(a.nfe), count(b.nfe))
    table.add_row("sampling", duration(a.sample_seconds), duration(b.sample_seconds))
    if a.fit != b.fit:
        table.add_row("training", duration(a.fit_seconds), duration(b.fit_seconds))
    show(console, table)
    lines(console, "")
    numbers = _table(["number", "A", "B", "A - B", ""], right=3)
    for name in pair.names:
        one, other = a.measure(name), b.measure(name)
        texts = [with_error(one.value, one.half, sign), with_error(other.value, other.half, sign)]
        numbers.add_row(Text(name), *texts, *_difference_words(_difference(pair, name), name, sign))
    if not numbers.row_count:
        lines(console, "they have no number in common")
    else:
        show(console, numbers)


def show_pairs(console: Console, found: Sequence[Pair]) -> None:
    """Print what two trainings differ in, each pair of their cells, and the mean difference over all pairs."""
    sign, first = sign_of(console), found[0]
    table = _table(["", f"A  {first.a.fit}", f"B  {first.b.fit}"])
    for key, one, other in first.settings():
        table.add_row(*map(Text, (key, one, other)))
    table.add_row("training", duration(first.a.fit_seconds), duration(first.b.fit_seconds))
    show(console, table)
    lines(console, "")
    name = str(first.a.metric)
    numbers = _table([name, "A", "B", "A - B", ""], right=3)
    same = [pair for pair in found if pair.a.metric == name and pair.b.has(name)]
    for pair in same:
        a, b = pair.a, pair.b
        sampled = [f"{group}={option}" for group, option in a.options.items() if group in INFERENCE]
        label = " ".join([*sampled, f"nfe={count(a.nfe)}"])
        texts = [with_error(one.value, one.half, sign) for one in (a.measure(name), b.measure(name))]
        numbers.add_row(Text(label), *texts, *_difference_words(_difference(pair, name), name, sign))
    mean = mean_difference([(pair.a, pair.b) for pair in same], name) if len(same) > 1 else None
    if mean is not None:
        label = f"mean of {things(len(same), 'pair')}"
        numbers.add_row(label, "", "", *_difference_words(mean, name, sign), style="bold")
    show(console, numbers)


def save_pictures(a: Path, b: Path, to: Path) -> None:
    """Save the sample grids `a` and `b` as one picture, a on the left: the same place is the same starting noise.

    Raises:
        OSError: for a picture that cannot be read, and where `to` cannot be written.
    """
    from PIL import Image

    from diffsweep.files import atomic, make_folder

    with Image.open(a) as left, Image.open(b) as right:
        size = (left.width + _GAP + right.width, max(left.height, right.height))
        both = Image.new("RGB", size, "white")
        both.paste(left.convert("RGB"), (0, 0))
        both.paste(right.convert("RGB"), (left.width + _GAP, 0))
    make_folder(to.parent)
    with atomic(to) as temporary:
        both.save(temporary, "png")


def _difference(pair: Pair, name: str) -> Difference | str:
    """The difference of a number with its interval, or the reason why there is none."""
    try:
        found = difference(pair.a, pair.b, name)
    except ValueError as error:
        return str(error).partition(" with ")[2] or str(error)
    return found or "no interval is recorded"


def _difference_words(found: Difference | str, name: str, sign: str) -> tuple[str, str]:
    """A difference as a number, and what it means."""
    if isinstance(found, str):
        return "", found
    value = with_error(found.value, found.half, sign)
    if not found.significant:
        return value, "cannot be told apart"
    better = "A" if (found.value > 0) == larger_is_better(name) else "B"
    return value, f"{better} is better"


def _table(titles: Sequence[str], right: int = 0) -> Table:
    """A table without rules; of its columns after the first, `right` many are set to the right."""
    table = Table(box=None, pad_edge=False)
    for place, title in enumerate(titles):
        table.add_column(Text(title), justify="right" if 0 < place <= right else "left", overflow="fold")
    return table
