"""A sweep while it goes on: on a terminal a view that fits it, in a log one line for each thing that has happened.

Fits and cells are called by what distinguishes them from the others of the sweep, not by their signatures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from socket import gethostname
from time import monotonic
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffsweep import messages
from diffsweep.report.format import count, duration, number, with_error
from diffsweep.report.statistics import larger_is_better
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.status.sweep_state import ItemState, SweepState
from diffsweep.sweep.store.blocked import blocked_reason

_STYLES = {"done": "green", "running": "cyan", "failed": "red", "blocked": "red", "missing": "yellow"}
_WORDS = {"blocked": "not run"}
_ORDER = ("done", "running", "waiting", "failed", "blocked", "missing")
# What is listed of the cells that failed for one reason, and of the best ones.
_EXAMPLES = 3
# What waits for that long until somebody does something is told in a log.
_HELD_UP_SECONDS = 60.0
_UNBOUNDED = 1_000_000


@dataclass(frozen=True)
class Names:
    """What the fits and cells of a sweep are called, and (`shared`) the overrides that all of them have."""

    fits: dict[str, str]
    cells: dict[str, str]
    shared: str

    @classmethod
    def of(cls, plan: Plan) -> Names:
        """The names in `plan`."""
        tasks = list(plan.cells.values())
        counts = Counter(word for task in tasks for word in dict.fromkeys(task.overrides))
        common = {word for word, times in counts.items() if times == len(tasks) > 1}
        cells = {task.cell: [word for word in task.overrides if word not in common] for task in tasks}
        fits = {}
        for fit, members in plan.trainings.items():
            kept = [word for word in cells[members[0]] if all(word in cells[cell] for cell in members[1:])]
            # The only cell of its fit says more than it need: which of its words are the sampler's is not known here.
            fits[fit] = " ".join(kept) or fit
            if fit in plan.autoencoders:
                fits[fit] = f"autoencoder {fits[fit]}"
        shared = " ".join(word for word in tasks[0].overrides if word in common) if tasks else ""
        return cls(fits, {cell: " ".join(words) or cell for cell, words in cells.items()}, shared)


def view(plan: Plan, names: Names, look: SweepState, width: int = 80, height: int | None = None) -> RenderableType:
    """A look at a sweep, `width` columns wide and at most `height` lines high (None: as high as it gets)."""
    head = _head(plan, names, look)
    fits = [(names.fits[fit], item) for fit, item in look.fits.items() if item.state == "running"]
    cells = [(names.cells[cell], item) for cell, item in look.cells.items() if item.state == "running"]
    failures, best = [*_held_up(look), *_failures(names, look)], _best(names, look)
    room = _UNBOUNDED if height is None else max(height - len(head), 0)
    # With the empty line above it, and the heading of a table.
    wanted = [len(fits) + 2 if fits else 0, len(cells) + 2 if cells else 0, len(failures) + 1 if failures else 0]
    shares = _shares(wanted, room)
    parts: list[RenderableType] = list(head)
    if shares[0]:
        parts += ["", *_running("training", fits, shares[0] - 2, width)]
    if shares[1]:
        parts += ["", *_running("evaluating", cells, shares[1] - 2, width)]
    if shares[2]:
        parts += ["", *_capped(failures, shares[2] - 1, plan)]
    left = room - sum(shares)
    if best and left > 2:
        parts += ["", *best[: left - 1]]
    for part in parts:
        if isinstance(part, Text) and height is not None:
            part.no_wrap, part.overflow = True, "ellipsis"
    return Group(*parts[:height])


def _head(plan: Plan, names: Names, look: SweepState) -> list[Text]:
    title = Text.assemble((plan.name, "bold"), "  ", *_counts("cells", look.counts))
    lines = [title, Text.assemble(*_counts("trainings", look.fit_counts))]
    times = []
    if look.elapsed_seconds is not None:
        times.append(f"{duration(look.elapsed_seconds)} so far")
    if look.eta_seconds is not None:
        times.append(f"about {duration(look.eta_seconds)} to go" + (" and the evaluations" if look.eta_partial else ""))
    lines.append(Text("; ".join(filter(None, [", ".join(times), standing(look, plan)])), style="dim"))
    if names.shared:
        lines.append(Text(f"all: {names.shared}", style="dim"))
    return lines


def _trainings(plan: Plan) -> str:
    """How many fits a sweep has, and how many autoencoders if it has any."""
    encoders = f" and {things(len(plan.autoencoders), 'autoencoder')}" if plan.autoencoders else ""
    return f"{things(len(plan.fits), 'training')}{encoders}"


def standing(look: SweepState, plan: Plan) -> str:
    """Who is at work on a sweep, in words; what to do if nobody is."""
    resume = f"`{plan.command_for('resume')}`"
    left = len(look.cells) - look.counts["done"]
    if look.launcher == "live":
        return f"running, launched by process {look.process.pid} on {look.process.host}" if look.process else "running"
    if look.launcher == "detached":
        return "running on SLURM, detached"
    if look.launcher == "elsewhere" and look.process is not None:
        return f"launched on {look.process.host}; whether it goes on can only be told there"
    if look.launcher == "finished":
        # A launcher that was told to stop has ended its launch as well.
        ended = "stopped" if look.counts["missing"] else "finished"
        return ended if not left else f"{ended}, {things(left, 'cell')} without result: {resume}"
    return f"interrupted: {resume}" if look.launcher == "interrupted" else f"not launched: {resume}"


def _counts(things: str, counts: Counter[str]) -> Iterator[str | tuple[str, str]]:
    yield f"{count(counts['done'])}/{count(sum(counts.values()))} {things} done"
    for state in _ORDER[1:]:
        if counts[state]:
            yield ", "
            yield f"{count(counts[state])} {_WORDS.get(state, state)}", _STYLES.get(state, "")


def _running(title: str, items: Sequence[tuple[str, ItemState]], rows: int, width: int) -> Iterator[RenderableType]:
    """A table of what runs, at most `rows` lines and its heading; columns that nothing fills are left out."""
    shown = items if len(items) <= rows else items[: max(rows - 1, 1)]
    narrow, unbounded = width < 100, width > 1000
    columns = {
        "step": [_steps(item) for _, item in shown],
        "loss": [number(item.loss) if item.loss is not None else "" for _, item in shown],
        "img/s": [_speed(item) for _, item in shown],
        "ETA": [_clock(item.eta_seconds) for _, item in shown],
        "stage": [item.stage for _, item in shown],
        "where": [_where(item, narrow) for _, item in shown],
    }
    bar = 0 if unbounded else 8 if narrow else 20
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", expand=not unbounded)
    table.add_column(title, overflow="ellipsis", no_wrap=True, ratio=None if unbounded else 1)
    if not any(columns["step"]):
        bar = 0
    if bar:
        table.add_column("", width=bar)
    columns = {name: texts for name, texts in columns.items() if any(texts)}
    for name, texts in columns.items():
        words = name in ("where", "stage")
        widest = max(map(len, (name, *texts)))
        if words and narrow:
            widest = min(widest, 14)
        table.add_column(name, justify="left" if words else "right", no_wrap=True, overflow="ellipsis", width=widest)
    for index, (name, item) in enumerate(shown):
        done = [ProgressBar(item.steps or 1, item.step or 0, width=bar)] if bar else []
        table.add_row(Text(name), *done, *(Text(texts[index]) for texts in columns.values()))
    yield table
    if len(items) > len(shown) and rows > len(shown):
        yield Text(f"... and {len(items) - len(shown)} more", style="dim")


def _where(item: ItemState, narrow: bool) -> str:
    """Host and job; where there is little room, what tells more: everything on this machine is on this machine."""
    host = "" if item.host == gethostname() else item.host
    return host or item.job if narrow else " ".join(filter(None, (host, item.job)))


def _clock(seconds: float | None) -> str:
    """`0:42`, `12:34`, `3:02:10`; days as `duration` has them."""
    if seconds is None or seconds >= 86400:
        return "" if seconds is None else duration(seconds)
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _steps(item: ItemState) -> str:
    if item.step is None:
        return ""
    return f"{item.step}/{item.steps}" if item.steps else str(item.step)


def _speed(item: ItemState) -> str:
    return f"{item.images_per_second:,.0f}" if item.images_per_second is not None else ""


def _held_up(look: SweepState) -> list[Text]:
    """What waits until somebody does something, and what that is."""
    return [Text.assemble(("waiting: ", "yellow"), _line(_held_up_line(hint, look))) for hint in look.held_up]


def _held_up_line(hint: str, look: SweepState) -> str:
    """A hint, with the jobs that it is about: `its partition is down (PartitionDown): ... (2 jobs: 812_0, 812_1)`."""
    jobs = list(dict.fromkeys(item.job for item in look.held_up[hint] if item.job))
    named = ", ".join(jobs[:_EXAMPLES]) + (", ..." if len(jobs) > _EXAMPLES else "")
    return f"{hint} ({things(len(jobs), 'job')}: {named})"


def _failures(names: Names, look: SweepState) -> list[Text]:
    """Each reason once, with some of the fits and cells that it hit, and the log to read."""
    groups: dict[str, list[tuple[str, ItemState]]] = {}
    behind = Counter(item.reason for item in look.cells.values() if item.state == "blocked")
    for fit, item in look.fits.items():
        if item.state == "failed":
            hit = behind[blocked_reason(fit, item.reason)]
            not_run = f" ({things(hit, 'cell')} not run)" if hit else ""
            groups.setdefault(item.reason, []).append((f"training {names.fits[fit]}{not_run}", item))
    for cell, item in look.cells.items():
        if item.state == "failed":
            groups.setdefault(item.reason, []).append((names.cells[cell], item))
    lines = []
    for reason, hit in groups.items():
        lines.append(Text.assemble(("failed: ", "red"), _line(reason)))
        lines += [Text(f"  {_line(name)}") for name, _ in hit[:_EXAMPLES]]
        if len(hit) > _EXAMPLES:
            lines.append(Text(f"  ... and {count(len(hit) - _EXAMPLES)} more", style="dim"))
        log = next((item.log for _, item in hit if item.log), "")
        if log and log not in reason:
            lines.append(Text(f"  see {near(log)}", style="dim"))
    return lines


def _best(names: Names, look: SweepState) -> list[Text]:
    """The best cells so far, for each metric."""
    by_metric: dict[str, list[tuple[float, str, ItemState]]] = {}
    for cell, item in look.cells.items():
        if item.state == "done" and item.value is not None:
            by_metric.setdefault(item.metric, []).append((item.value, cell, item))
    lines = []
    for metric, found in by_metric.items():
        found.sort(reverse=larger_is_better(metric), key=lambda one: one[0])
        lines.append(Text(f"best {metric} so far", style="bold"))
        shown = [(with_error(value, item.half), names.cells[cell]) for value, cell, item in found[:_EXAMPLES]]
        lines += [Text(f"  {text}  {name}") for text, name in shown]
    return lines


def _capped(lines: Sequence[Text], rows: int, plan: Plan) -> Sequence[Text]:
    if len(lines) <= rows:
        return lines
    return [*lines[: rows - 1], Text(f"... all of it: `{plan.command_for('status')}`", style="dim")]


def _shares(wanted: Sequence[int], room: int) -> list[int]:
    """How many lines each part gets: none more than it wants, and none at all where its share is of no use."""
    shares = [0] * len(wanted)
    parts = [index for index in range(len(wanted)) if wanted[index]]
    # Those that want little first: what they leave is for the others.
    for place, index in enumerate(order := sorted(parts, key=lambda index: wanted[index])):
        share = min(wanted[index], room // (len(order) - place))
        shares[index] = share if share >= min(wanted[index], 3) else 0
        room -= shares[index]
    return shares


def things(amount: int, thing: str) -> str:
    """A number of things: `1 cell`, `1,200 cells`."""
    return f"{count(amount)} {thing}{'' if amount == 1 else 's'}"


def near(path: str) -> str:
    """A path as seen from the working folder, if it lies below."""
    try:
        return str(Path(path).absolute().relative_to(Path.cwd()))
    except ValueError:
        return path


def _line(text: str) -> str:
    # A reason may hold anything, also what would move the cursor.
    return "".join(letter if letter.isprintable() else " " for letter in text)


class LiveView:
    """Shows looks at a sweep as they come: `with LiveView(plan) as view: view.show(watch.read())`.

    On a terminal one picture that is drawn anew and vanishes at the end; elsewhere (a log, a pipe) plain lines, only
    when something has changed.
    """

    def __init__(self, plan: Plan, console: Console | None = None) -> None:
        self.plan = plan
        # Standard output is for the table.
        self.console = console or messages.console(stderr=True)
        self.names = Names.of(plan)
        self._live: Live | None = None
        self._before: SweepState | None = None
        self._failed: set[tuple[str, str]] = set()
        # Hint -> when it was first seen; infinite once it is printed.
        self._hints: dict[str, float] = {}

    def __enter__(self) -> LiveView:
        if self.console.is_terminal:
            self._live = Live(console=self.console, transient=True, auto_refresh=False, vertical_overflow="crop")
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def replan(self, plan: Plan) -> None:
        """Go on with a plan that has grown, as that of a search does."""
        self.plan, self.names = plan, Names.of(plan)

    def show(self, look: SweepState) -> None:
        """Show the newest look."""
        if self._live is not None:
            size = self.console.size
            # One line less than there is: a full screen scrolls.
            picture = view(self.plan, self.names, look, size.width, size.height - 1)
            self._live.update(messages.Printable(picture), refresh=True)
        else:
            for line in (*self._news(look), *self._long_held_up(look)):
                self.console.print(Text(_line(line)), soft_wrap=True)
        self._before = look

    def _news(self, look: SweepState) -> Iterator[str]:
        before = self._before
        total, done = len(look.cells), look.counts["done"]
        if before is None:
            already = f", {done} done already" if done else ""
            yield f"sweep {self.plan.name}: {things(total, 'cell')} of {_trainings(self.plan)}{already}"
        else:
            done = before.counts["done"]
        for fit, item in look.fits.items():
            then = before.fits.get(fit) if before is not None else None
            # What was done before this began to watch is no news.
            if (
                then is item
                or (then is not None and then.state == item.state)
                or (before is None and item.state == "done")
            ):
                continue
            name = f"training {self.names.fits[fit]}"
            if item.state == "running":
                where = " ".join(filter(None, (item.host, item.job)))
                yield f"started {name}" + (f" on {where}" if where else "")
            elif item.state == "done":
                yield f"done {name}" + (f" in {duration(item.seconds)}" if item.seconds is not None else "")
            elif item.state == "failed" and self._is_news(fit, item):
                hit = sum(look.cells[cell].state == "blocked" for cell in self.plan.trainings[fit])
                behind = f"; {things(hit, 'cell')} not run" if hit else ""
                yield f"failed {name}: {item.reason}{_see(item)}{behind}"
        for cell, item in look.cells.items():
            then = before.cells.get(cell) if before is not None else None
            if (
                then is item
                or (then is not None and then.state == item.state)
                or (before is None and item.state == "done")
            ):
                continue
            name = self.names.cells[cell]
            if item.state == "done":
                done += 1
                yield f"[{done}/{total}] done {name}  {item.metric} {with_error(item.value, item.half)}".rstrip(" -")
            elif item.state == "failed" and self._is_news(cell, item):
                yield f"[{done}/{total}] failed {name}: {item.reason}{_see(item)}"

    def _long_held_up(self, look: SweepState) -> Iterator[str]:
        """Lines about what has waited for a minute until somebody does something, each once."""
        now = monotonic()
        self._hints = {hint: self._hints.get(hint, now) for hint in look.held_up}
        for hint, since in self._hints.items():
            if now - since >= _HELD_UP_SECONDS:
                self._hints[hint] = inf
                yield f"waiting: {_held_up_line(hint, look)}"

    def _is_news(self, signature: str, item: ItemState) -> bool:
        # While its job ends, a failure may be taken for a run that goes on, and then for a failure again.
        known = (signature, item.reason) in self._failed
        self._failed.add((signature, item.reason))
        return not known


def _see(item: ItemState) -> str:
    return f" (see {near(item.log)})" if item.log and item.log not in item.reason else ""
