"""Which sampler, with which spacing, at which cost? The choice of least regret over random mixtures of Gaussians.

100 random mixtures to choose from and 100 others to score on, of 1 to 256 dimensions, with two to ten components of
unlike weights, widths and spectra, half of them of low rank. Every candidate integrates their exact denoisers from the
same unit noise. The error is the root mean square distance of its end points from those of the exact flow, over the
standard deviation of the data: unlike W2 it is defined in any dimension, it bounds W2 from above, and it does not take
an image for another one that is as likely. The regret of a candidate on a problem is the logarithm of its error over
the least error of all candidates there, and its regret is the mean over the problems: so the candidate of least regret
is that of the least geometric mean of errors. Ours and each peer's choices are made by that rule, at each number of
calls, from all that they offer, on the same problems.

    python benchmarks/sampler_regret.py choose     # about 25 minutes on one core; goes on where it was stopped
    python benchmarks/sampler_regret.py fit        # the parameters of the default, at each number of calls
    python benchmarks/sampler_regret.py score      # what was chosen, on the other half, and on a third set
    python benchmarks/sampler_regret.py report     # the YAML and the tables
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from solver_accuracy import CONF, ENTRIES, HERE, Entry, Model, Problem, affordable, our_run, our_samplers, our_spacings
from torch import Tensor

from diffsweep.diffusion import GaussianMixture, Level, Sampler, Schedule
from diffsweep.diffusion.solvers import Multistep
from diffsweep.diffusion.spacing import FlowTime
from diffsweep.recommended import parameter

CALLS = (4, 5, 7, 10, 20, 50)
DIMENSIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
POINTS = 16
# Of 100 problems every fifth is tried first; who is worse than the best by more than this factor is not tried on all.
SCREEN, FACTOR = 5, 1.5
FINALISTS, KEPT = 3, 6
FORMER = "dpmpp_2m", "logsnr"
PEERS = tuple(package for package in ENTRIES if package != "diffsweep")


class Mixtures(Problem):
    """Many random mixtures at once: the state is all points of all problems in one column, as solvers are linear.

    A component's covariance is diagonal, which loses nothing: a solver does the same in any rotated basis.
    """

    name = "mixtures"
    error_name = "RMS distance"
    # What a peer that needs to know the dimension is told: a column.
    mixture = GaussianMixture.of([1.0], [[0.0]], [1.0])

    def __init__(self, seed: int, count: int = 100, every: int = 1, exact: bool = True) -> None:
        g = torch.Generator().manual_seed(seed)
        parts = [_Mixture.random(DIMENSIONS[i % len(DIMENSIONS)], g) for i in range(count)]
        chosen = [part for i, part in enumerate(parts) if i % every == 0]
        order = sorted(range(len(chosen)), key=lambda i: chosen[i].dimension)
        self.parts = [chosen[i] for i in order]
        """In the order of the column: by dimension."""
        self.groups = [_Group(list(group)) for _, group in itertools.groupby(self.parts, lambda part: part.dimension)]
        self.sizes = [group.size for group in self.groups]
        self.unit = torch.cat([part.unit.flatten() for part in self.parts])[:, None]
        self.exact = self.flow() if exact else torch.empty(0)

    def denoise(self, x: Tensor, level: Level) -> Tensor:
        alpha, sigma = float(level.alpha), float(level.sigma)
        columns = x.double().flatten().split(self.sizes)
        denoised = [group(column, alpha, sigma) for group, column in zip(self.groups, columns, strict=True)]
        return torch.cat(denoised).view_as(x)

    def flow(self, fine: float = 0.02, top: float = 1e4, bottom: float = 1e-5) -> Tensor:
        """The exact end points: Runge-Kutta 4 on y = x / alpha, dy / dlog n = y - E[x0 | y], in steps of ``fine``."""
        marks = [math.log(mark) for mark in (top, 60.0, 0.003, bottom)]
        y = top * self.unit
        for high, low, size in zip(marks, marks[1:], (5 * fine, fine, 5 * fine), strict=False):
            steps = math.ceil((high - low) / size)
            h = (low - high) / steps
            for i in range(steps):
                a = high + h * i
                k1 = self._slope(y, a)
                k2 = self._slope(y + h / 2 * k1, a + h / 2)
                k3 = self._slope(y + h / 2 * k2, a + h / 2)
                k4 = self._slope(y + h * k3, a + h)
                y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y

    def _slope(self, y: Tensor, log_noise: float) -> Tensor:
        return y - self.denoise(y, Level(1.0, math.exp(log_noise)))

    def errors(self, x0: Tensor) -> list[float]:
        """Of each problem, in units of its data's standard deviation."""
        pieces = (x0.double() - self.exact).flatten().split([part.unit.numel() for part in self.parts])
        pairs = zip(pieces, self.parts, strict=True)
        return [float(piece.square().mean().sqrt()) / part.deviation for piece, part in pairs]

    def error(self, x0: Tensor) -> float:
        return _geometric(self.errors(x0))


@dataclass(frozen=True)
class _Mixture:
    """One mixture: weights (K,), means and standard deviations (K, D), and unit noise to start from, (N, D)."""

    weights: Tensor
    means: Tensor
    stds: Tensor
    unit: Tensor
    deviation: float

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    @classmethod
    def random(cls, dimension: int, g: torch.Generator) -> _Mixture:
        def uniform(low: float, high: float, *shape: int) -> Tensor:
            return low + (high - low) * torch.rand(shape, generator=g, dtype=torch.float64)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=g, dtype=torch.float64)

        components = int(uniform(2, 11))
        # Dirichlet weights by exponentials to a power: 0.3 alike, 2 very unlike.
        weights = -uniform(0, 1, components).clamp(1e-3).log()
        weights = weights ** float(uniform(0.3, 2))
        weights = weights / weights.sum()
        # The spectrum falls as a power of the number, as that of images does; low rank cuts it off.
        numbers = torch.arange(1, dimension + 1, dtype=torch.float64)
        spectrum = numbers ** -float(uniform(0, 1))
        if dimension > 1 and float(uniform(0, 1)) < 0.5:
            rank = math.ceil(dimension * float(uniform(0.05, 0.6)))
            spectrum[rank:] *= float(uniform(math.log(0.005), math.log(0.1)).exp())
        # Distance of the means over the width of components, and how unlike the widths are.
        spread = float(uniform(math.log(0.7), math.log(8.0)).exp())
        widths = (float(uniform(0, 0.8)) * normal(components, 1)).exp()
        means = spread * spectrum * normal(components, dimension)
        stds = spectrum * widths
        means = means - weights @ means
        total = math.sqrt(float(weights @ (means.square() + stds.square()).mean(1)))
        deviation = float(uniform(math.log(0.3), math.log(1.0)).exp())
        if dimension == 1:
            # Quantiles: the whole of the distribution in few points.
            unit = torch.special.ndtri((torch.arange(POINTS, dtype=torch.float64) + 0.5) / POINTS)[:, None]
        else:
            unit = normal(POINTS, dimension)
        return cls(weights, means * deviation / total, stds * deviation / total, unit, deviation)


class _Group:
    """The exact denoisers of several mixtures of one dimension, in matrix products."""

    def __init__(self, parts: Sequence[_Mixture]) -> None:
        self.shape = len(parts), POINTS, parts[0].dimension
        self.size = math.prod(self.shape)
        most = max(len(part.weights) for part in parts)

        def padded(values: Tensor, fill: float) -> Tensor:
            return torch.cat([values, values.new_full((most - len(values), *values.shape[1:]), fill)])

        self.logs = torch.stack([padded(part.weights.log(), -math.inf) for part in parts])
        self.means = torch.stack([padded(part.means, 0.0) for part in parts])
        self.squares = torch.stack([padded(part.stds, 1.0) for part in parts]).square()

    def __call__(self, column: Tensor, alpha: float, sigma: float) -> Tensor:
        y = column.view(self.shape)
        inverse = 1 / (alpha**2 * self.squares + sigma**2)
        scaled = alpha * self.means * inverse
        constant = self.logs - ((scaled * self.means * alpha) - inverse.log()).sum(2) / 2
        exponent = torch.baddbmm(constant[:, None], y, scaled.mT) - (y.square() @ inverse.mT) / 2
        posterior = torch.softmax(exponent, 2)
        gain = alpha * self.squares * inverse
        return (posterior @ (self.means - gain * self.means * alpha) + (posterior @ gain) * y).flatten()


def _geometric(errors: Iterable[float]) -> float:
    logs = [math.log(max(error, 1e-12)) for error in errors]
    return math.exp(sum(logs) / len(logs))


# ----------------------------------------------------------------------------------------------------------- candidates


@dataclass(frozen=True)
class Candidate:
    """A solver on one grid; ours on a schedule, or a peer's on a process of its own."""

    package: str
    solver: str
    grid: str
    schedule: str
    entry: Entry
    sampler: Sampler | None = None

    def key(self, nfe: int, schedules: dict[str, Schedule]) -> str:
        """What tells its run from others: of ours the noise levels, which many schedules share."""
        if self.sampler is None:
            return f"{self.package}|{self.solver}|{self.grid}"
        sampler = replace(self.sampler, nfe=max(nfe, self.sampler.least_nfe))
        levels = " ".join(f"{level.noise:.6g}" for level in sampler.levels(schedules[self.schedule]))
        timed = f"|{self.schedule}" if getattr(sampler.solver, "variable", "") == "time" else ""
        return f"{self.package}|{self.solver}|{levels}{timed}"


def all_schedules() -> dict[str, Schedule]:
    """Those of conf/schedule; ``shifted`` as for 32 pixels, for at 64 it is its inner one."""
    found: dict[str, Schedule] = {}
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for path in sorted((CONF / "schedule").glob("*.yaml")):
            size = ["schedule.size=32"] if path.stem == "shifted" else []
            found[path.stem] = instantiate(compose(overrides=[f"+schedule={path.stem}", *size]).schedule)
    return found


_samplers, _spacings = functools.cache(our_samplers), functools.cache(our_spacings)


def flow_times() -> dict[str, FlowTime]:
    shapes = ((1.0, 1.0), (0.6, 0.6), (0.8, 0.8), (0.6, 1.0), (1.0, 0.6))
    return {
        f"flow_time {a:g} {b:g} {shift:g}": FlowTime(a, b, shift)
        for (a, b), shift in itertools.product(shapes, (0.4, 0.7, 1.0))
    }


def ours(schedule: str, schedules: dict[str, Schedule], solvers: Iterable[str] | None = None) -> Iterator[Candidate]:
    """Every deterministic sampler, or those named, with every spacing on a schedule."""
    samplers = _samplers()
    spacings = {name: spacing for name, (_, spacing) in _spacings().items() if name != "flow_time"} | flow_times()
    for solver in samplers if solvers is None else solvers:
        for grid, spacing in spacings.items():
            sampler = replace(samplers[solver], spacing=spacing)
            run = _bound(sampler, schedules[schedule])
            yield Candidate("diffsweep", solver, grid, schedule, Entry("diffsweep", solver, "", grid, run), sampler)


def _bound(sampler: Sampler, schedule: Schedule) -> Callable[[Model, Problem, int], Tensor]:
    return lambda model, problem, steps: our_run(sampler, schedule, model, problem, steps)


def theirs(package: str) -> Iterator[Candidate]:
    """All that a peer offers, but for its adaptive solvers, whose cost is no choice."""
    for entry in ENTRIES[package]():
        if not entry.adaptive:
            yield Candidate(package, entry.solver, f"{entry.process} {entry.grid}", "", entry)


class Measurements:
    """Errors of candidates on the problems of a set, in a file that grows line by line."""

    def __init__(self, path: Path, problem: Mixtures, schedules: dict[str, Schedule]) -> None:
        self.path, self.problem, self.schedules = path, problem, schedules
        self.trial = Mixtures(99, 2, exact=False)
        self.known: dict[tuple[str, int], list[float] | None] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            for line in path.read_text().splitlines():
                try:
                    key, nfe, errors = json.loads(line)
                except ValueError:
                    # Cut short by a kill.
                    continue
                self.known[key, nfe] = errors
        self.file = path.open("a")

    def errors(self, candidate: Candidate, nfe: int) -> list[float] | None:
        """Its errors with at most ``nfe`` calls, or None where it fails or some are not finite."""
        try:
            key = candidate.key(nfe, self.schedules), nfe
        except ValueError:
            return None
        if key not in self.known:
            found = self._measured(candidate.entry, nfe)
            self.known[key] = found
            self.file.write(json.dumps([*key, found]) + "\n")
            self.file.flush()
        return self.known[key]

    def _measured(self, entry: Entry, nfe: int) -> list[float] | None:
        try:
            with torch.inference_mode():
                steps = affordable(entry, self.trial, nfe)
                if steps is None:
                    return None
                model = Model(self.problem.denoise)
                errors = self.problem.errors(entry.run(model, self.problem, steps))
        except (ValueError, IndexError, RuntimeError, AssertionError, ZeroDivisionError):
            return None
        assert model.calls <= nfe, (entry, nfe, model.calls)
        return [float(f"{error:.4g}") for error in errors] if all(map(math.isfinite, errors)) else None


def raced(
    candidates: Sequence[Candidate], few: Measurements, many: Measurements, nfe: int, label: str
) -> list[tuple[float, Candidate]]:
    """The candidates by their error on all problems, the best first; only those good on a fifth of them are tried."""
    scored: list[tuple[float, Candidate]] = []
    for i, candidate in enumerate(candidates):
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{label} {nfe:3d} calls {i + 1}/{len(candidates)} ")
        errors = few.errors(candidate, nfe)
        if errors is not None:
            scored.append((_geometric(errors), candidate))
    scored.sort(key=lambda pair: pair[0])
    good = [candidate for i, (e, candidate) in enumerate(scored) if i < 4 or e < FACTOR * scored[0][0]][:40]
    full = [(many.errors(candidate, nfe), candidate) for candidate in good]
    found = [(_geometric(errors), candidate) for errors, candidate in full if errors is not None]
    return sorted(found, key=lambda pair: pair[0])


# ------------------------------------------------------------------------------------------------------------- choosing


class Study:
    """The sets of problems, and what was measured on them, below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.schedules = all_schedules()

    def measurements(self, name: str, seed: int, every: int = 1) -> Measurements:
        problem = Mixtures(seed, every=every, exact=False)
        path = self.folder / f"{name}_exact.pt"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(problem.flow(), path)
        problem.exact = torch.load(path, weights_only=True)
        return Measurements(self.folder / f"{name}.jsonl", problem, self.schedules)

    def choose(self) -> None:
        """Of each package, and of ours on each schedule, the best at each number of calls on the choosing half."""
        few, many = self.measurements("few", 0, SCREEN), self.measurements("choose", 0)
        found: dict[str, Any] = {}
        for package in PEERS:
            field = list(theirs(package))
            for nfe in CALLS:
                self._race(field, few, many, nfe, f"{package}||{nfe}", found)
        # At more calls, and on the other schedules, the solvers that were among the best of the cheaper measurements.
        kept = list(_samplers())
        best: dict[str, None] = {}
        for nfe in CALLS:
            field = list(ours("cosine", self.schedules, kept))
            self._race(field, few, many, nfe, f"diffsweep|cosine|{nfe}", found)
            ranked = _best_solvers(field, few, nfe)
            best |= dict.fromkeys(ranked[:KEPT])
            kept = kept if nfe < 10 else ranked[: 3 * KEPT]
        for schedule in self.schedules:
            if schedule != "cosine":
                field = list(ours(schedule, self.schedules, best))
                for nfe in CALLS:
                    self._race(field, few, many, nfe, f"diffsweep|{schedule}|{nfe}", found)

    def fit(self) -> None:
        """The settings of the default at each number of calls, by the choosing half alone."""
        few, many = self.measurements("few", 0, SCREEN), self.measurements("choose", 0)
        found: dict[int, Any] = {}
        for nfe in CALLS:
            start = time.process_time()
            found[nfe] = [[*setting, float(f"{error:.4g}")] for error, setting in fitted(few, many, nfe)]
            print(f"{nfe} calls: {found[nfe][:4]} ({time.process_time() - start:.0f} s)", flush=True)
        (self.folder / "fitted.json").write_text(json.dumps(found, indent=1))

    def score(self) -> None:
        """What was chosen, on the other half and on problems made after the choice."""
        chosen = json.loads((self.folder / "chosen.json").read_text())
        peers = {(c.package, c.solver, c.grid): c for package in PEERS for c in theirs(package)}
        own = {schedule: {(c.solver, c.grid): c for c in ours(schedule, self.schedules)} for schedule in self.schedules}
        found: dict[str, list[dict[str, Any]]] = {}
        for name, seed in (("score", 1), ("after", 2)):
            measurements = self.measurements(name, seed)
            records = found[name] = []
            for nfe, schedule in itertools.product(CALLS, ("cosine", *self.schedules)):
                if schedule == "cosine" and any(record["nfe"] == nfe for record in records):
                    continue
                field = {"default": default(nfe).candidate(schedule, self.schedules), "former": own[schedule][FORMER]}
                if schedule == "cosine":
                    for package in PEERS:
                        for i, (solver, grid, _) in enumerate(chosen.get(f"{package}||{nfe}", ())[:FINALISTS]):
                            field[f"{package} {i}"] = peers[package, solver, grid]
                for i, (solver, grid, _) in enumerate(chosen.get(f"diffsweep|{schedule}|{nfe}", ())[:FINALISTS]):
                    field[f"best of ours {i}"] = own[schedule][solver, grid]
                records += _compared(field, measurements, nfe, schedule)
                print(name, json.dumps(records[-len(field) :]), flush=True)
        (self.folder / "scored.json").write_text(json.dumps(found, indent=1))

    def report(self) -> None:
        """The YAML, the results that are kept, and the tables of the page."""
        scored = self.folder / "scored.json"
        fitted_json = self.folder / "fitted.json"
        if fitted_json.is_file():
            chosen = json.loads(fitted_json.read_text())
            settings = {nfe: Setting(*chosen[str(nfe)][0][:-1]) for nfe in CALLS}
            write_table(settings, json.loads(scored.read_text())["score"] if scored.is_file() else [])
        if scored.is_file():
            lines = {name: ",\n".join(map(json.dumps, found)) for name, found in json.loads(scored.read_text()).items()}
            parts = ",\n".join(f'"{name}": [\n{text}\n]' for name, text in lines.items())
            RESULTS.write_text(f"{{\n{parts}\n}}\n")
        page = between(PAGE.read_text(), "settings", settings_table())
        if RESULTS.is_file():
            results = json.loads(RESULTS.read_text())
            page = between(page, "peers", peers_table(results["score"]))
            page = between(page, "schedules", schedules_table(results["score"]))
        PAGE.write_text(page)

    def _race(
        self, field: list[Candidate], few: Measurements, many: Measurements, nfe: int, key: str, found: dict[str, Any]
    ) -> None:
        start = time.process_time()
        ranked = raced(field, few, many, nfe, key)
        found[key] = [[c.solver, c.grid, _rounded(error)] for error, c in ranked[:10]]
        (self.folder / "chosen.json").write_text(json.dumps(found, indent=1))
        print(f"{key}: {found[key][:3]} ({time.process_time() - start:.0f} s)", flush=True)


def _compared(field: dict[str, Candidate], measurements: Measurements, nfe: int, schedule: str) -> list[dict[str, Any]]:
    """A record for each candidate; its regret is to the best of them all on each problem."""
    known = {label: measurements.errors(candidate, nfe) for label, candidate in field.items()}
    errors = {label: found for label, found in known.items() if found is not None}
    least = [min(column) for column in zip(*errors.values(), strict=True)]
    return [
        {
            "schedule": schedule,
            "nfe": nfe,
            "who": label,
            "solver": field[label].solver,
            "grid": field[label].grid,
            "error": _rounded(_geometric(found)),
            "regret": _rounded(_ratio(found, least)[0]),
            # Of the default's error over this one, its 95 % interval, and the share of problems where it is less.
            "ratio": [_rounded(value) for value in _ratio(errors["default"], found)],
            "wins": sum(a < b for a, b in zip(errors["default"], found, strict=True)) / len(found),
        }
        for label, found in errors.items()
    ]


def _best_solvers(field: Iterable[Candidate], few: Measurements, nfe: int) -> list[str]:
    """Solvers by the error of their best grid."""
    best: dict[str, float] = {}
    for candidate in field:
        errors = few.errors(candidate, nfe)
        if errors is not None:
            best[candidate.solver] = min(_geometric(errors), best.get(candidate.solver, math.inf))
    return sorted(best, key=lambda solver: best[solver])


# -------------------------------------------------------------------------------------------------------------- fitting


class Setting(NamedTuple):
    """What is fitted of the default: the order of Adams-Bashforth in v, and a, b and shift of its `FlowTime`."""

    order: int
    a: float
    b: float
    shift: float

    def sampler(self, nfe: int) -> Sampler:
        return Sampler(Multistep("v", "share", self.order), FlowTime(self.a, self.b, self.shift), nfe)

    def candidate(self, schedule: str, schedules: dict[str, Schedule]) -> Candidate:
        """It on a schedule."""
        sampler = self.sampler(20)
        solver, grid = f"adams_bashforth_v order={self.order}", f"flow_time {self.a:g} {self.b:g} {self.shift:g}"
        entry = Entry("diffsweep", solver, "", grid, _bound(sampler, schedules[schedule]))
        return Candidate("diffsweep", solver, grid, schedule, entry, sampler)


ORDERS = (1, 2, 3, 4)
SHAPES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2)
SHIFTS = (0.35, 0.5, 0.7, 1.0, 1.4)


def neighbours(setting: Setting) -> Iterator[Setting]:
    """Those that differ in one parameter by one place of its list, and in the order."""
    for order in ORDERS:
        yield setting._replace(order=order)
    for name, values in (("a", SHAPES), ("b", SHAPES), ("shift", SHIFTS)):
        place = values.index(getattr(setting, name))
        for other in (place - 1, place + 1):
            if 0 <= other < len(values):
                yield setting._replace(**{name: values[other]})


def fitted(few: Measurements, many: Measurements, nfe: int) -> list[tuple[float, Setting]]:
    """Settings by their error on the choosing half, the best first: found on a fifth of it, ranked on all."""

    def search(setting: Setting, measurements: Measurements, tried: dict[Setting, float]) -> Setting:
        def error(one: Setting) -> float:
            if one not in tried:
                errors = measurements.errors(one.candidate("cosine", measurements.schedules), nfe)
                tried[one] = math.inf if errors is None else _geometric(errors)
            return tried[one]

        while (best := min(neighbours(setting), key=error)) != setting and error(best) < error(setting):
            setting = best
        return setting

    rough: dict[Setting, float] = {}
    for order in (3, 4):
        search(Setting(order, 0.6, 0.6, 0.7), few, rough)
    exact: dict[Setting, float] = {}
    for setting in sorted(rough, key=lambda one: rough[one])[:2]:
        search(setting, many, exact)
    return sorted((error, setting) for setting, error in exact.items())


def default(nfe: int) -> Setting:
    """The default's setting at a number of calls, from its table."""
    return Setting(*(parameter(name, nfe) for name in Setting._fields))


def _ratio(errors: Sequence[float], others: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean over the problems of error over other error, with its 95 % interval."""
    logs = torch.tensor([math.log(max(a, 1e-12) / max(b, 1e-12)) for a, b in zip(errors, others, strict=True)])
    mean, half = float(logs.mean()), 1.96 * float(logs.std()) / math.sqrt(len(logs))
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


# ------------------------------------------------------------------------------------------------------------ reporting

TABLE = HERE.parent / "src/diffsweep/recommended.yaml"
PAGE = HERE.parent / "docs/samplers.md"
RESULTS = HERE / "sampler_regret.json"
HEADER = """\
# Made by benchmarks/sampler_regret.py. The default sampler at each number of calls: order of Adams-Bashforth in v; a, b
# and shift of its levels, `FlowTime`; its regret on the cosine schedule, over problems that nobody chose by: how many
# times the least error of all finalists, ours and the peers', in the geometric mean; that of sampler=dpmpp_2m.
# Then on each schedule, for each number of calls, its error over that of sampler=dpmpp_2m.
"""


def write_table(settings: dict[int, Setting], records: Sequence[dict[str, Any]]) -> None:
    """The YAML that `sampler=recommended` reads."""
    found = {(record["schedule"], record["nfe"], record["who"]): record for record in records}
    lines = ["calls:"]
    for nfe, setting in settings.items():
        values = setting._asdict()
        if ("cosine", nfe, "default") in found:
            values |= {
                key: found["cosine", nfe, who]["regret"] for key, who in (("regret", "default"), ("former", "former"))
            }
        lines.append(f"  {nfe}: {{{', '.join(f'{name}: {value}' for name, value in values.items())}}}")
    schedules = sorted({schedule for schedule, _, _ in found})
    lines += ["schedules:"] if schedules else []
    for schedule in schedules:
        ratios = (f"{nfe}: {found[schedule, nfe, 'former']['ratio'][0]:g}" for nfe in settings)
        lines.append(f"  {schedule}: {{{', '.join(ratios)}}}")
    TABLE.write_text(HEADER + "\n".join(lines) + "\n")


def settings_table() -> str:
    rows = [[nfe, *default(nfe)] for nfe in CALLS]
    return _table(["calls", "order", "a", "b", "shift"], rows)


def peers_table(records: Sequence[dict[str, Any]]) -> str:
    """Errors on the cosine schedule, and what each peer had chosen."""
    found = {(record["who"], record["nfe"]): record for record in records if record["schedule"] == "cosine"}
    names = {"default": "`sampler=recommended`", "former": "`sampler=dpmpp_2m`"}
    rows: list[list[Any]] = []
    for who in ("default", "former", *(f"{package} 0" for package in PEERS)):
        cells = []
        for nfe in CALLS:
            record = found[who, nfe]
            choice = "" if who in names else f" ({record['solver']}, {record['grid']})"
            cells.append(f"{record['error']:.2g}{choice}")
        rows.append([names.get(who, who[:-2]), *cells])
    best = {nfe: min((found[f"{package} 0", nfe] for package in PEERS), key=lambda r: r["error"]) for nfe in CALLS}
    rows.append(["ours over the best peer's", *(_interval(best[nfe]) for nfe in CALLS)])
    return _table(["", *CALLS], rows)


def schedules_table(records: Sequence[dict[str, Any]]) -> str:
    """The default's error over the former default's."""
    found = {(r["schedule"], r["nfe"]): r for r in records if r["who"] == "former"}
    rows: list[list[Any]] = []
    for schedule in sorted({schedule for schedule, _ in found}):
        cells = [_interval(found[schedule, nfe]) for nfe in CALLS]
        rows.append([f"`{schedule}`", *cells])
    return _table(["schedule", *CALLS], rows)


def _interval(record: dict[str, Any]) -> str:
    mean, low, high = record["ratio"]
    return f"{mean:.2g} ({low:.2g} to {high:.2g}; {record['wins']:.0%})"


def _table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
        .replace("| --- ", "|---")
        .replace("|--- |", "|---|")
    )


def between(page: str, name: str, text: str) -> str:
    """The page with this text between the marks of that name."""
    head, mark, rest = page.partition(f"<!-- {name} -->\n")
    assert mark, name
    return head + mark + text + "\n" + rest[rest.index("<!-- end -->") :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["choose", "fit", "score", "report"])
    parser.add_argument("--folder", type=Path, default=Path("runs/sampler_regret"), help="where parts are kept")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    study = Study(args.folder)
    getattr(study, args.step)()


if __name__ == "__main__":
    main()
