"""The members of a collection: its pictures, videos or sounds, of which none is read so far."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

from diffsweep.data.collections.names import natural, one_line, printable
from diffsweep.settings import Split

if TYPE_CHECKING:
    import numpy as np

    # Of a member: its file's bytes, the bytes of the files of its frames, or its pixels, uint8 (H, W, C).
    Content = bytes | list[bytes] | np.ndarray

T = TypeVar("T")

# Of the members that cannot be read so many are named.
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a collection.

    Attributes:
        name: its path in the collection, with "/".
        content: reads it.
        label: what it shows, as text; None if that is not known.
        caption: its description; None if it has none.
        split: the split that it was given; None if it was given none.
    """

    name: str
    content: Callable[[], Content]
    label: str | None = None
    caption: str | None = None
    split: Split | None = None


@dataclass(frozen=True, eq=False)
class Members:
    """All members of a collection as columns: a million objects would take half a gigabyte.

    Attributes:
        names: as of `Member`.
        read: the content of the member at a place of the list.
        labels: as of `Member`; equal ones should be one object.
        captions: as of `Member`.
        splits: as of `Member`.
    """

    names: Sequence[str]
    read: Callable[[int], Content]
    labels: Sequence[str | None]
    captions: Sequence[str | None]
    splits: Sequence[Split | None]

    @classmethod
    def of(cls, members: Sequence[Member]) -> Members:
        """From objects, where there are few."""
        return cls(
            [one.name for one in members],
            lambda place: members[place].content(),
            [one.label for one in members],
            [one.caption for one in members],
            [one.split for one in members],
        )

    @classmethod
    def joined(cls, parts: Sequence[Members]) -> Members:
        """One after the other."""
        ends = list(accumulate(len(part) for part in parts))

        def read(place: int) -> Content:
            number = bisect_right(ends, place)
            return parts[number].read(place - (ends[number] - len(parts[number])))

        return cls(
            [name for part in parts for name in part.names],
            read,
            [label for part in parts for label in part.labels],
            [caption for part in parts for caption in part.captions],
            [split for part in parts for split in part.splits],
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, place: int) -> Member:
        content = partial(self.read, place)
        return Member(self.names[place], content, self.labels[place], self.captions[place], self.splits[place])

    def __iter__(self) -> Iterator[Member]:
        return map(self.__getitem__, range(len(self)))

    def take(self, places: Sequence[int]) -> Members:
        """Those at these places, in that order."""
        import numpy as np

        # A list would hold an object for each number.
        chosen, read = np.array(places, dtype=np.int64), self.read
        return Members(
            [self.names[place] for place in places],
            lambda place: read(int(chosen[place])),
            [self.labels[place] for place in places],
            [self.captions[place] for place in places],
            [self.splits[place] for place in places],
        )

    def sorted(self) -> Members:
        """In the natural order of their names."""
        keys = [natural(name) for name in self.names]
        return self.take(sorted(range(len(keys)), key=keys.__getitem__))


def unreadable(found: Members, broken: Mapping[int, str], what: str, advice: str) -> ValueError:
    """The error about members that cannot be read: how many, and the first of them with the reason.

    Args:
        found: all members.
        broken: why members cannot be read, by place in the list.
        what: the members in words, as "pictures in photos".
        advice: what to do about it, where some can be read.
    """
    first = [f"{printable(found.names[place])} ({broken[place]})" for place in sorted(broken)[:_NAMED]]
    more = f" and {len(broken) - _NAMED:,} more" if len(broken) > _NAMED else ""
    end = f"; {advice}" if len(broken) < len(found) else ""
    return ValueError(f"{len(broken):,} of the {len(found):,} {what} cannot be read: {', '.join(first)}{more}{end}")


def outcome(member: Member, use: Callable[[Content], T]) -> T | str:
    """What `use` makes of the content of a member, or the reason why it cannot be read."""
    try:
        return use(member.content())
    except FileNotFoundError:
        return "a link to nowhere"
    except (OSError, ValueError) as error:
        return one_line(error)
