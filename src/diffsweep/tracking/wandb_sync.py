"""`diffsweep wandb-sync`: W&B runs made from our own files, whatever became of those that told themselves.

A run that was killed offline has lost its last rows, or all; its metrics.jsonl has not. The same ids are used as by the
runs themselves, and W&B is asked what it has: only what it lacks is told.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffsweep.report.status import find, sweeps
from diffsweep.sweep.plan.plan import Plan
from diffsweep.sweep.store import query
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.record import Cell, Fit, read_metrics
from diffsweep.tracking.wandb_run import OFFLINE, Mirror, Place, Subject, digest, noted, where


@dataclass(frozen=True)
class Told:
    """One record to tell W&B of: a fit or a cell, with its resolved config."""

    record: Fit | Cell
    subject: Subject
    config: Mapping[str, Any]


def sync(runs: Path, asked: str | None, mode: str, project: str | None = None, entity: str | None = None) -> int:
    """Make the W&B runs of a sweep, of a fit with its cells, of a cell, or of everything below `runs`.

    Args:
        runs: folder of the runs.
        asked: name of a sweep, its beginning, or `last`; signature of a fit or cell; None for everything.
        mode: "online" or "offline".
        project: W&B project; None for that of each run's config, or diffsweep.
        entity: W&B team or user; likewise.

    Returns:
        The exit code: 0, or 1 if W&B did not take something.

    Raises:
        ValueError: if nothing is called so.
    """
    plan = _plan(runs, asked)
    told = list(_of_plan(plan) if plan is not None else _of_runs(runs, asked))
    if not told:
        named = f" called {asked}" if asked else ""
        raise ValueError(f"{runs} has no sweep, fit or cell{named}: diffsweep status lists the sweeps")
    failed = False
    for one in told:
        place = _place(one.config, mode, project, entity)
        word = _tell(one, place)
        failed = failed or word == "failed"
        print(f"{one.subject.kind:<5} {one.subject.signature}  {one.subject.name}: {word}", flush=True)
    if plan is not None:
        from diffsweep.tracking.wandb_summary import summarise

        place = _place(told[0].config, mode, project, entity)
        word = summarise(plan, place)
        failed = failed or word == "failed"
        print(f"summary {plan.name}: {word}", flush=True)
    return int(failed)


def _place(config: Mapping[str, Any], mode: str, project: str | None, entity: str | None) -> Place:
    place = replace(Place.of(config) or Place(), mode=mode)
    return replace(place, project=project or place.project, entity=entity or place.entity)


def _plan(runs: Path, asked: str | None) -> Plan | None:
    if asked is None:
        return None
    # A signature may be the beginning of no sweep's name, but a path or `last` may be one.
    known = asked == "last" or any(path.name.startswith(asked) for path in sweeps(runs))
    return Plan.read(find(runs, asked)) if known or (Path(asked) / "plan.json").is_file() else None


def _of_plan(plan: Plan) -> Iterator[Told]:
    for cells in plan.fits.values():
        # What another sweep has made is shown there.
        groups = {name: (plan.cell(name).result() or {}).get("sweep") or plan.name for name in cells}
        run, config = plan.run(cells[0]), plan.config(cells[0])
        yield Told(run.fit, Subject.of("fit", run.fit.folder, config, run.choices, groups[cells[0]]), config)
        for name in cells:
            run, config = plan.run(name), plan.config(name)
            yield Told(run.cell, Subject.of("cell", run.cell.folder, config, run.choices, groups[name]), config)


def _of_runs(runs: Path, asked: str | None) -> Iterator[Told]:
    results: dict[str, list[dict[str, Any]]] = {}
    for result in query.results(runs):
        results.setdefault(str(result["fit"]), []).append(result)
    for known in query.fits(runs):
        fit = Fit(runs / "fits" / str(known["fit"]))
        cells = results.get(fit.signature, [])
        if asked not in (None, fit.signature, *(cell["cell"] for cell in cells)):
            continue
        first = cells[0] if cells else {}
        if asked in (None, fit.signature) and fit.config_file.exists():
            config, note = _config(fit), noted(fit.folder)
            choices, group = first or note.get("choices") or {}, first.get("sweep") or note.get("group")
            yield Told(fit, Subject.of("fit", fit.folder, config, choices, group), config)
        for result in cells:
            cell = fit.cell(str(result["cell"]))
            if asked in (None, fit.signature, cell.signature):
                config = _config(cell)
                yield Told(cell, Subject.of("cell", cell.folder, config, result, result.get("sweep")), config)


def _config(record: Fit | Cell) -> dict[str, Any]:
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(OmegaConf.load(record.config_file))
    return plain


def _tell(one: Told, place: Place) -> str:
    """Tell W&B what it lacks of a record; returns what became of it."""
    record, folder = one.record, one.subject.folder
    done = record.result()
    rows = read_metrics(record.metrics_file) if isinstance(record, Fit) else []
    if done is not None and done.get("external") and isinstance(record, Fit):
        return "nothing was trained"
    if done is None and not rows:
        return "not done yet"
    if Lease(folder).holder() is not None:
        return "is being worked on: it tells W&B itself"
    note, content = noted(folder), digest(done) if done is not None else None
    if content is not None and note.get("record") == content:
        offline = place.mode == "offline" and (folder / "wandb" / str(note.get("run"))).exists()
        if note.get("where") == where(place) or offline:
            return "complete already"
    mirror = Mirror.open(one.subject, place, quiet=True, fall_back=False)
    if mirror is None:
        return "failed"
    if content is not None and mirror.told == content:
        mirror.complete(content)
        return "complete already" if mirror.close() else "failed"
    before = mirror.first
    for row in rows:
        mirror.row({key: value for key, value in row.items() if key != "step" and value is not None}, row["step"])
    if isinstance(record, Cell):
        assert done is not None
        mirror.evaluated(done, record.samples_file)
    elif done is not None:
        entry = (one.config.get("logger") or {}).get("wandb") or {}
        mirror.trained(done, rows, record.checkpoints / "ema.safetensors" if entry.get("artifact") else None)
    whole = mirror.close(failed=done is None, preempted=done is None, rows=rows)
    if mirror.hint:
        print(f"W&B is offline; to send this run: {mirror.hint}", file=sys.stderr)
    told = sum(row["step"] >= before for row in rows)
    what = f"{told} of {len(rows)} rows told" if isinstance(record, Fit) else "told"
    return "failed" if not whole else what + (f" ({OFFLINE})" if mirror.offline else "")
