"""Keys that only some of the swept options know, as those of `guidance=none,cfg guidance.scale=4`.

Such a word applies where its key is known and is dropped elsewhere, so that the cells are those of the single runs
`guidance=none` and `guidance=cfg guidance.scale=4`. A key that no swept option knows is refused, as in a single run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffsweep.sweep.plan.constructor import parameters


@dataclass(frozen=True)
class OptionConfig:
    """What a choice of options makes: its config, plain and unresolved, and the option of each group."""

    config: Mapping[str, Any]
    choices: Mapping[str, str | None]

    def knows(self, key: str) -> bool:
        """Whether a key or group may be set in it: it is there, or the constructor there takes it."""
        if key in self.choices:
            return True
        node: Any = self.config
        *above, last = key.split(".")
        for part in above:
            node = node.get(part) if isinstance(node, Mapping) else None
        if not isinstance(node, Mapping):
            return False
        target = node.get("_target_")
        return last in node or (isinstance(target, str) and last in (parameters(target) or ()))


class OptionKeys:
    """Tells which words of a set of overrides apply, of those that other choices of options know.

    Args:
        load: What overrides that choose options make. Raises an exception for those that do not go together.
        is_group: Whether a key is that of a group of options.
    """

    def __init__(self, load: Callable[[tuple[str, ...]], OptionConfig], is_group: Callable[[str], bool]) -> None:
        self._load = load
        self._is_group = is_group
        self._known: dict[tuple[str, ...], OptionConfig | None] = {}

    def applying(self, words: Sequence[str], others: Iterable[Sequence[str]]) -> tuple[str, ...]:
        """`words` without those whose key is unknown to the options that they choose, but known to those of `others`.

        Words that add or delete keys are never dropped.
        """
        if self._loaded(self._top(words)) is None:
            # Options that are not there, or do not go together: what Hydra says of them must be said.
            return tuple(words)
        others = list(others)
        kept = []
        for word in words:
            key = key_of(word)
            if key is None or self._knows(words, key) or not self._is_known(key, others):
                kept.append(word)
        return tuple(kept)

    def _is_known(self, key: str, others: Iterable[Sequence[str]]) -> bool:
        return any(self._knows(other, key) for other in others if key in map(key_of, other))

    def _knows(self, words: Sequence[str], key: str) -> bool:
        # A group below another, as guidance/output, is there only for some options of the other.
        chosen = [word for word in words if (group := key_of(word)) is not None and self._is_group(group)]
        top = self._top(words)
        found = self._loaded(top)
        if found is None or self._is_group(key):
            return found is not None and (found.knows(key) or "/" not in key)
        below = tuple(word for word in chosen if word in top or found.knows(key_of(word) or ""))
        found = self._loaded(below)
        return found is not None and found.knows(key)

    def _top(self, words: Sequence[str]) -> tuple[str, ...]:
        """The words that choose an option of a group that is not below another."""
        keys = {word: key_of(word) for word in words}
        return tuple(word for word, key in keys.items() if key is not None and "/" not in key and self._is_group(key))

    def _loaded(self, options: tuple[str, ...]) -> OptionConfig | None:
        if options not in self._known:
            try:
                self._known[options] = self._load(options)
            except Exception:
                # Options that do not go together know nothing; whoever composes them says why.
                self._known[options] = None
        return self._known[options]


def key_of(word: str) -> str | None:
    """The key or group that a word sets; None for one that adds or deletes."""
    key, mark, _ = word.partition("=")
    return key if mark and key[:1] not in ("+", "~") and "@" not in key else None


def dropped_keys(tasks: Sequence[Sequence[str]], values: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """(key, sentence) of each key that only some tasks of a sweep have: to which options it applies, and to which not.

    `tasks` are the overrides of each task; `values` is how the values of a key are shown, by default all of them. A
    sweeper gives all tasks the same keys, so one that is absent was dropped.
    """
    pairs = [{key: word.partition("=")[2] for word in words if (key := key_of(word)) is not None} for words in tasks]
    for key in dict.fromkeys(key for one in pairs for key in one):
        having = [one for one in pairs if key in one]
        lacking = [one for one in pairs if key not in one]
        if not lacking:
            continue
        word = f"{key}={(values or {}).get(key) or ','.join(dict.fromkeys(one[key] for one in having))}"
        group = _telling_group(key, having, lacking)
        if group is None:
            yield key, f"{word} applies to {len(having)} of {len(pairs)} combinations, the others do not know it"
        else:
            applies, not_ = (",".join(dict.fromkeys(one[group] for one in some)) for some in (having, lacking))
            yield key, f"{word} applies to {group}={applies}, not to {group}={not_}"


def _telling_group(key: str, having: Sequence[Mapping[str, str]], lacking: Sequence[Mapping[str, str]]) -> str | None:
    """The group whose options decide whether a task has the key: the one that the key lies in, if it does."""
    found = [
        group
        for group in having[0]
        if all(group in one for one in (*having, *lacking))
        and not {one[group] for one in having} & {one[group] for one in lacking}
    ]
    return next((group for group in found if key.startswith((f"{group}.", f"{group}/"))), found[0] if found else None)
