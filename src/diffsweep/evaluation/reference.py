"""What samples are compared with: real data as an extractor sees them, computed once and kept by content.

A stale reference gives a distance that is wrong without a sign of it, so a cache file is trusted only by its name (the
digests of data and extractor) together with a checksum of what it holds.

Real data are read a batch at a time, and what was computed of them is put aside every minute, so that a million
pictures need no more memory than a thousand, and whoever is killed goes on where he was:

    <cache>/reference-ID.safetensors           moments of all, features of some, labels
    <cache>/floor-ID.safetensors               features of as many held-out ones as there are samples
    <cache>/reference-ID.lease/                while it is computed: who does it, and how far it is
"""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import torch
from torch import Tensor
from tqdm import tqdm

from diffsweep.evaluation.checked_tensors import read_tensors, write_tensors
from diffsweep.evaluation.extractor import Extractor, sha256
from diffsweep.evaluation.features import Features
from diffsweep.evaluation.moments import Moments
from diffsweep.evaluation.running_statistics import RunningStatistics
from diffsweep.files import CannotWriteError, write_atomic
from diffsweep.messages import say
from diffsweep.mistakes import whole

FORMAT = "2"

# Moments are those of all real samples; beyond this many, the features of a fixed choice are kept.
KEPT = 10_000

# Seconds between lines that say how far it is.
REPORT_SECONDS = 10.0


class RealExamples(Protocol):
    """Some real examples, as stored."""

    @property
    def x(self) -> Tensor: ...


class RealData(Protocol):
    """Real data, read by number, with labels int64 (N,) and their identity; a `Source` of `data` is one."""

    def __len__(self) -> int: ...

    @property
    def labels(self) -> Tensor: ...

    def take(self, numbers: Tensor, /) -> RealExamples:
        """The examples of these numbers, int64 (M,), in that order."""
        ...

    def digest(self) -> str:
        """Identity of the data: changes with any value, shape or dtype."""
        ...


@dataclass(frozen=True, eq=False)
class Reference:
    """Real data in an extractor's features.

    Attributes:
        features: of all of them or, where there are more, of `KEPT` chosen at random once and for all; with labels.
        known: mean and covariance of each output over all of them.
        digest: SHA-256 (hex) of the data.
        file: where this is kept, with numbers that follow from it beside; None for nowhere.
    """

    features: Features
    known: Mapping[str, Moments]
    digest: str
    file: Path | None = None

    @property
    def n(self) -> int:
        """Number of real samples."""
        return self.known["features"].n

    def moments(self, output: str = "features") -> Moments:
        """Mean and covariance of an output over all real samples."""
        return self.known[output]

    def keep(self, what: str, compute: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """See `Real.keep`: a small file, trusted only for the same reference, code and `what`."""
        if self.file is None:
            return compute()
        path = self.file.with_name(f"numbers-{sha256(self.file.name, _code(), what)[:32]}.json")
        numbers = _read_numbers(path)
        if numbers is None:
            numbers = compute()
            content = json.dumps(numbers)
            # In a folder that others have filled nothing need be written.
            with contextlib.suppress(OSError, CannotWriteError):
                write_atomic(path, json.dumps({"numbers": content, "sha256": sha256(content)}).encode())
        return numbers


# Holds off others who want to work in a folder as well, for as long as a block runs that may put files there: they wait
# and get it afterwards, or when this process has died. Gives that folder, or None where nothing can be written; then
# nobody is held off.
Alone: TypeAlias = Callable[[Path], AbstractContextManager[Path | None]]


def _unguarded(folder: Path) -> AbstractContextManager[Path | None]:
    return contextlib.nullcontext(None)


@dataclass(frozen=True)
class Library:
    """Where references come from, and where they are kept.

    Attributes:
        extractor: on the device to compute on.
        outputs: those of the extractor's outputs that are wanted; `features` always is.
        cache: folder of the files.
        batch_size: samples at a time.
        show: whether to draw a bar when standard error is a terminal.
        alone: see `Alone`.
        save_seconds: time between two times that what was computed so far is put aside.
    """

    extractor: Extractor
    outputs: Sequence[str]
    cache: Path
    batch_size: int
    show: bool = True
    alone: Alone = _unguarded
    save_seconds: float = 60.0

    def reference(self, real: RealData) -> Reference:
        """The reference that all of the data make.

        A cache file that is absent, cut short or altered is made again, by one process at a time if `alone` sees to it.

        Raises:
            ValueError: when the data do not fit the extractor.
        """
        digest = real.digest()
        path = self._path("reference", digest)
        stored = self._once(path, lambda folder: self._compute(real, folder))
        names = self._names
        features = Features({name: stored[f"{name}.kept"] for name in names}, stored["labels"])
        n = int(stored["n"])
        known = {name: Moments(stored[f"{name}.mean"], stored[f"{name}.cov"], n) for name in names}
        return Reference(features, known, digest, path)

    def held_out(self, real: RealData, n: int, seed: int, *, balanced: bool = False) -> Features:
        """Features of `n` of the data, or of all if there are fewer, chosen by `seed`: what a perfect model would draw.

        Args:
            real: held-out data.
            n: how many.
            seed: of the choice, without replacement.
            balanced: whether every label is to have as many, in turn, as samples that are asked for by label have: such
                sets lie closer to the data than random ones.

        Raises:
            ValueError: when the data do not fit the extractor, or fewer than 2 are there or wanted.
        """
        order = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))
        chosen = (_in_turn(order, real.labels) if balanced else order)[: max(n, 0)]
        if len(chosen) < 2:
            raise ValueError(f"the floor needs at least 2 held-out examples, not {n} of {len(real)}")
        path = self._path("floor", real.digest(), n, seed, balanced)

        def compute(folder: Path | None) -> dict[str, Tensor]:
            labels = real.labels[chosen]
            found = Features.collect(self._batches(real, chosen, "held-out data"), labels, self.outputs)
            return {f"{name}.kept": found[name] for name in self._names} | {"labels": labels}

        stored = self._once(path, compute)
        return Features({name: stored[f"{name}.kept"] for name in self._names}, stored["labels"])

    @property
    def _names(self) -> list[str]:
        return sorted({"features", *self.outputs})

    def _path(self, kind: str, digest: str, *more: object) -> Path:
        one = self.extractor
        identity = [FORMAT, digest, one.digest, one.space, one.dimension, KEPT, self._names, *more]
        return Path(self.cache) / f"{kind}-{sha256(json.dumps(identity))[:32]}.safetensors"

    def _once(self, path: Path, compute: Callable[[Path | None], dict[str, Tensor]]) -> dict[str, Tensor]:
        """What the file holds, or else what is computed, by one process at a time, and kept there if that may be."""
        stored = read_tensors(path)
        if stored is None:
            with self.alone(path.with_suffix(".lease")) as folder:
                # Whoever had to wait finds what the other has made.
                stored = read_tensors(path)
                if stored is None:
                    stored = compute(folder)
                    try:
                        write_tensors(path, stored)
                    except CannotWriteError as error:
                        say(f"careful: {error}; what was computed of real data is used, and not kept")
        return stored

    def _batches(self, real: RealData, numbers: Tensor, what: str, first: int = 0) -> Iterator[dict[str, Tensor]]:
        """Outputs for the examples of these numbers, in their order, but for the first so many."""
        total, done = len(numbers), first
        numbers = numbers[first:]
        bar = tqdm(
            desc=what,
            initial=first,
            total=total,
            unit="img",
            disable=None if self.show else True,
            dynamic_ncols=True,
            leave=False,
        )
        started = reported = time.monotonic()
        with bar:
            for part in numbers.split(whole("batch_size", self.batch_size, 1)):
                batch = self.extractor(real.take(part).x)
                yield batch
                done += len(batch["features"])
                bar.update(len(batch["features"]))
                now = time.monotonic()
                # Where no bar is drawn, as in a job's log, long work must not look like none.
                if self.show and bar.disable and now - reported >= REPORT_SECONDS and done < total:
                    reported = now
                    left = (now - started) * (total - done) / (done - first)
                    say(f"{what}: features of {done:,} of {total:,}, about {_duration(left)} to go; they are kept")

    def _compute(self, real: RealData, folder: Path | None) -> dict[str, Tensor]:
        count = len(real)
        if not count:
            raise ValueError("there are no real examples to compare with")
        running = RunningStatistics(self._names, count, KEPT)
        # In batches of another size the same numbers would be added in another order, which moves their last digits.
        partial = None if folder is None else folder / f"partial-{self.batch_size}.safetensors"
        before = None if partial is None else read_tensors(partial)
        if before is not None:
            running.take_up(before, int(before["done"]))
            if self.show:
                say(f"real data: features of {running.done:,} of {count:,} were there already")
        saved = time.monotonic()
        for batch in self._batches(real, torch.arange(count), "real data", running.done):
            running.add(batch)
            if partial is not None and time.monotonic() - saved >= self.save_seconds and running.done < count:
                saved = time.monotonic()
                # Where there is no room it is computed in one go.
                with contextlib.suppress(CannotWriteError):
                    write_tensors(partial, running.tensors() | {"done": torch.tensor(running.done)})
        return running.tensors() | {"labels": real.labels[running.chosen], "n": torch.tensor(count)}


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _in_turn(order: Tensor, labels: Tensor) -> Tensor:
    """The numbers in `order`, one of each label after the other for as long as there are any."""
    ranks = torch.empty_like(order)
    shown = labels[order]
    for label in shown.unique():
        here = shown == label
        ranks[here] = torch.arange(int(here.sum()))
    return order[(ranks * (int(shown.max()) + 1) + shown).argsort()]


def _read_numbers(path: Path) -> dict[str, float] | None:
    try:
        stored = json.loads(path.read_bytes())
        return json.loads(stored["numbers"]) if sha256(stored["numbers"]) == stored["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


@functools.cache
def _code() -> str:
    """Digest of this package's code: what was computed by other code is computed again."""
    return sha256(*(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py"))))
