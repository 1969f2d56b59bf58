"""What people see of a sweep: a picture that fits the terminal, a log of what has happened, and an end on demand."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest
from rich.console import Console

import processes
from diffsweep.report.live import LiveView, Names, view
from diffsweep.report.status import cancel, find, status
from diffsweep.sweep.plan.jobs import Job, LaunchRecord
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.status.sweep_state import ItemState, SweepState
from diffsweep.sweep.store.blocked import blocked_reason
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import Record
from diffsweep.sweep.store.result import Result
from processes import dead

SAMPLERS = ("ddim", "heun", "unipc", "euler", "dpmpp_2m")


def study(runs: Path, fits: int = 2, cells: int = 3, name: str = "study") -> Plan:
    signed = [
        SignedConfig(
            ("dataset=digits", f"seed={fit}", f"sampler={SAMPLERS[cell % 5]}", f"sampler.nfe={5 * (cell // 5 + 1)}"),
            {"seed": fit},
            {"dataset": "digits"},
            f"f{fit:03}",
            f"c{fit:03}{cell:03}",
        )
        for fit in range(fits)
        for cell in range(cells)
    ]
    plan = Plan(runs / "sweeps" / name, runs).with_tasks(signed)
    plan.write()
    return plan


def busy(plan: Plan, running: int, reason: str = "RuntimeError: out of memory") -> SweepState:
    """A third of the trainings done, `running` at work, the last one failed; every seventh evaluation failed too."""
    names = list(plan.fits)
    fits: dict[str, ItemState] = {}
    cells: dict[str, ItemState] = {}
    for place, fit in enumerate(names):
        if place < len(names) // 3:
            fits[fit] = ItemState("done", seconds=10.0)
        elif place < len(names) // 3 + running:
            item = ItemState("running", 123, 5000, images_per_second=12345.6, eta_seconds=754.2, loss=0.123456)
            fits[fit] = replace(item, host=f"gpu-node-{place:03}", job=f"8123456_{place}")
        else:
            fits[fit] = ItemState("waiting")
    fits[names[-1]] = ItemState("failed", reason=reason, log="logs/fit.log")
    for fit, members in plan.fits.items():
        for place, cell in enumerate(members):
            if fits[fit].state == "failed":
                cells[cell] = ItemState("blocked", reason=blocked_reason(fit, reason))
            elif fits[fit].state != "done":
                cells[cell] = ItemState("waiting")
            elif place % 7 == 2:
                cells[cell] = ItemState("failed", reason="ValueError: samples are not finite", log="logs/cells.log")
            else:
                cells[cell] = ItemState("done", metric="fd_digits", value=0.3 + place / 100)
    return SweepState(fits, cells, "live", Process.current(), 754.0, 3600.0)


def picture(plan: Plan, look: SweepState, width: int = 80, height: int | None = None) -> list[str]:
    console = Console(file=io.StringIO(), width=width, record=True, force_terminal=True)
    console.print(view(plan, Names.of(plan), look, width, height))
    return console.export_text().splitlines()


# ---- the picture


@pytest.mark.parametrize(("fits", "cells", "running"), [(2, 3, 1), (2, 3, 0), (50, 10, 4), (50, 10, 30), (500, 1, 200)])
@pytest.mark.parametrize("height", [3, 6, 10, 23, 39, 80])
@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_picture_fits_its_terminal(
    tmp_path: Path, fits: int, cells: int, running: int, width: int, height: int
) -> None:
    plan = study(tmp_path, fits, cells)
    lines = picture(plan, busy(plan, running), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "cells done" in lines[0]


@pytest.mark.parametrize(("fits", "cells"), [(3, 1), (50, 10)])
def test_eighty_columns_tell_everything_that_matters(tmp_path: Path, fits: int, cells: int) -> None:
    plan = study(tmp_path, fits, cells)
    look = busy(plan, 1)
    lines = picture(plan, look, 80, 23)
    text = "\n".join(lines)
    assert lines[0].startswith(f"study  {look.counts['done']}/{fits * cells} cells done")
    assert f"{cells} not run" in lines[0]
    assert "12 min 34 s so far, about 1 h 00 min to go" in text
    assert "all: dataset=digits" in text
    (row,) = [line for line in lines if "123/5000" in line]
    assert row.startswith(f"seed={fits // 3} ")
    for told in ("0.1235", "12,346", "12:34", "gpu-node-0"):
        assert told in row
    assert "failed: RuntimeError: out of memory" in text
    assert f"seed={fits - 1} ({cells} cell" in text
    assert "see logs/fit.log" in text


def test_what_does_not_fit_is_counted(tmp_path: Path) -> None:
    plan = study(tmp_path, 50, 10)
    lines = picture(plan, busy(plan, 30), 80, 23)
    rows = sum("123/5000" in line for line in lines)
    assert 1 <= rows < 30
    assert f"... and {30 - rows} more" in lines


def test_nothing_is_left_out_without_a_limit(tmp_path: Path) -> None:
    plan = study(tmp_path, 50, 10)
    lines = picture(plan, busy(plan, 30), 80)
    assert sum("123/5000" in line for line in lines) == 30
    # 16 trainings are done, and of their ten cells each the third and the tenth failed.
    assert "  ... and 29 more" in lines


def test_text_of_logs_is_no_markup_and_moves_no_cursor(tmp_path: Path) -> None:
    plan = study(tmp_path)
    reason = "KeyError: [red]x[/red] [/] \x1b[2J\x07 {} %s"
    lines = picture(plan, busy(plan, 1, reason), 100)
    assert any("KeyError: [red]x[/red] [/]  [2J  {} %s" in line for line in lines)
    stream = io.StringIO()
    log = LiveView(plan, Console(file=stream, width=200))
    with log:
        log.show(busy(plan, 1, reason))
    assert "KeyError: [red]x[/red] [/]  [2J  {} %s" in stream.getvalue()


def test_the_best_are_the_smallest_distances_and_the_largest_accuracies(tmp_path: Path) -> None:
    plan = study(tmp_path, 1, 5)
    for metric, first in (("fd_digits", "ddim"), ("accuracy", "dpmpp_2m")):
        cells = {cell: ItemState("done", metric=metric, value=place / 10) for place, cell in enumerate(plan.cells)}
        lines = picture(plan, SweepState({"f000": ItemState("done")}, cells, "finished"))
        assert f"sampler={first}" in lines[lines.index(f"best {metric} so far") + 1]


# ---- terminal and log


def test_a_terminal_is_drawn_in_place_and_left_clean(tmp_path: Path) -> None:
    plan = study(tmp_path, 50, 10)
    stream = io.StringIO()
    with LiveView(plan, Console(file=stream, width=80, height=24, force_terminal=True)) as live:
        for running in (2, 3, 1):
            live.show(busy(plan, running))
    # What a terminal would show: follow lines up, line erasures and returns.
    screen, row = [""], 0
    for part in re.split(r"(\x1b\[\d*[A-Za-z]|\r|\n|\x1b\[\?25[lh])", stream.getvalue()):
        if part == "\n":
            row += 1
            screen += [""] * (row + 1 - len(screen))
        elif match := re.fullmatch(r"\x1b\[(\d*)A", part):
            row -= int(match[1] or 1)
        elif part == "\x1b[2K":
            screen[row] = ""
        elif part and not part.startswith("\x1b") and part != "\r":
            screen[row] += part
        assert 0 <= row < 24, "it scrolled"
    assert "".join(screen).strip() == ""


def test_a_log_says_what_changes_and_only_that(tmp_path: Path) -> None:
    plan = study(tmp_path)
    stream = io.StringIO()
    waiting = dict.fromkeys(plan.cells, ItemState("waiting"))
    fits = {"f000": ItemState("done"), "f001": ItemState("waiting")}
    done = ItemState("done", metric="fd_digits", value=0.412, half=0.0123)

    def told() -> list[str]:
        lines = stream.getvalue().splitlines()
        stream.seek(0)
        stream.truncate()
        return lines

    with LiveView(plan, Console(file=stream, width=80)) as live:
        live.show(SweepState(dict(fits), waiting | {"c000000": done}, "live"))
        assert told() == ["sweep study: 6 cells of 2 trainings, 1 done already"]
        live.show(SweepState(dict(fits), waiting | {"c000000": done}, "live"))
        assert told() == []
        fits["f001"] = ItemState("running", step=1, steps=9, host="gpu1", job="812_1")
        cells = waiting | {"c000000": done, "c000001": done, "c000002": ItemState("running")}
        live.show(SweepState(dict(fits), cells, "live"))
        assert told() == [
            "started training seed=1 on gpu1 812_1",
            "[2/6] done seed=0 sampler=heun  fd_digits 0.412 +- 0.012",
        ]
        fits["f001"] = ItemState("running", step=2, steps=9, host="gpu1", job="812_1")
        live.show(SweepState(dict(fits), cells, "live"))
        assert told() == []
        fits["f001"] = ItemState("failed", reason="RuntimeError: " + 100 * "x", log="logs/a.log")
        cells = cells | {"c000002": ItemState("failed", reason="ValueError: no")}
        cells |= {cell: ItemState("blocked", reason="not run") for cell in plan.fits["f001"]}
        live.show(SweepState(dict(fits), cells, "live"))
        assert told() == [
            f"failed training seed=1: RuntimeError: {100 * 'x'} (see logs/a.log); 3 cells not run",
            "[2/6] failed seed=0 sampler=unipc: ValueError: no",
        ]


# ---- status


@pytest.fixture
def output(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    def lines(call: Callable[..., int], *arguments: Any, code: int = 0) -> list[str]:
        capsys.readouterr()
        assert call(*arguments) == code
        return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

    return lines


def finish(plan: Plan, *cells: str) -> None:
    for cell in cells:
        run = plan.run(cell)
        run.fit.write_done({"steps": 10, "seconds": 1.0})
        run.cell.write_result(Result.parse({"metric": "fd_digits", "fd_digits": 0.5}))


def test_one_line_for_each_sweep_newest_last(tmp_path: Path, output: Callable[..., list[str]]) -> None:
    assert "no sweeps" in output(status, tmp_path, None, False)[0]
    plans = [study(tmp_path, name=name) for name in ("zeta", "alpha", "mid")]
    for place, plan in enumerate(plans):
        os.utime(plan.file, (1e9 + place, 1e9 + place))
    finish(plans[0], "c000000", "c000001")
    LaunchRecord("local", (), Process.current()).write(tmp_path / "sweeps" / "zeta")
    LaunchRecord("local", (), None, ended=True).write(tmp_path / "sweeps" / "alpha")
    broken = tmp_path / "sweeps" / "broken"
    broken.mkdir()
    (broken / "plan.json").write_text("{")
    os.utime(broken / "plan.json", (1e9 + 9, 1e9 + 9))
    (tmp_path / "sweeps" / "no_sweep").mkdir()
    _, zeta, alpha, mid, corrupt = output(status, tmp_path, None, False)
    assert re.match(r"zeta +2/6 +running, launched by process", zeta)
    assert re.match(rf"alpha +2/6 +stopped, 4 cells without result: `diffsweep resume alpha --runs {tmp_path}`$", alpha)
    assert re.match(rf"mid +2/6 +not launched: `diffsweep resume mid --runs {tmp_path}`$", mid)
    assert re.match(r"broken .*corrupt", corrupt)


def test_a_sweep_is_found_by_name_beginning_path_and_as_the_last(tmp_path: Path) -> None:
    for place, name in enumerate(("night_1", "night_2", "night")):
        plan = study(tmp_path, name=name)
        os.utime(plan.file, (1e9 + place, 1e9 + place))
    folder = tmp_path / "sweeps"
    assert find(tmp_path, "night") == folder / "night"
    assert find(tmp_path, "night_2") == find(tmp_path, str(folder / "night_2")) == folder / "night_2"
    assert find(tmp_path, "last") == folder / "night"
    with pytest.raises(ValueError, match=r"sweep nig may be any of 3: the newest are night, night_2, night_1$"):
        find(tmp_path, "nig")
    with pytest.raises(ValueError, match=r"sweep day is unknown: the newest are night, night_2, night_1$"):
        find(tmp_path, "day")
    with pytest.raises(ValueError, match="there is no sweep below"):
        find(tmp_path / "empty", "last")


def test_the_status_of_a_sweep_in_a_pipe_keeps_every_path_whole(
    tmp_path: Path, output: Callable[..., list[str]]
) -> None:
    plan = study(tmp_path / ("long_name_" * 15))
    cell = plan.cell("c000000")
    cell.folder.mkdir(parents=True)
    cell.write_status("failed", reason=cell.write_error(RuntimeError("y" * 300)))
    LaunchRecord("local", (Job("cells", "f000", ("c000000",), (), "1", "logs/a.log"),), None, True).write(plan.folder)
    lines = output(status, plan.runs, "study", False)
    assert lines[0].startswith("study  0/6 cells done, 1 failed, 5 missing")
    assert f"failed: RuntimeError: {'y' * 300}" in lines
    assert f"  see {plan.folder / 'logs/a.log'}" in lines
    assert max(map(len, lines)) < 1000


def test_watching_ends_with_the_sweep(tmp_path: Path, output: Callable[..., list[str]]) -> None:
    plan = study(tmp_path)
    LaunchRecord("local", (), None, ended=True).write(plan.folder)
    finish(plan, *plan.cells)
    lines = output(status, tmp_path, "last", True)
    assert "study  6/6 cells done" in lines
    assert "finished" in lines


def test_watching_sees_a_plan_that_grows_and_a_launcher_that_dies(tmp_path: Path) -> None:
    plan = study(tmp_path, 1, 1)
    launcher = processes.start("slow_launcher", plan.folder)
    assert processes.line(launcher) == "ready"
    command = [sys.executable, "-m", "diffsweep", "status", "study", "--watch", "--runs", str(tmp_path)]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert watcher.stdout is not None
    assert watcher.stdout.readline() == "sweep study: 1 cell of 1 training\n"
    plan = study(tmp_path, 2, 2)
    finish(plan, "c001001")
    assert watcher.stdout.readline() == "done training seed=1 in 1.0 s\n"
    assert watcher.stdout.readline() == "[1/4] done seed=1 sampler=heun  fd_digits 0.5000\n"
    processes.end(launcher)
    out, _ = watcher.communicate(timeout=120)
    assert f"interrupted: `diffsweep resume study --runs {tmp_path}`" in out
    assert watcher.returncode == 0


# ---- cancel


def job(record: Record, sweep: Path) -> subprocess.Popen[str]:
    """A job as the launcher starts it: it runs from the sweep's copy of the source, and holds a lease."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(sweep / "source-1"), *sys.path])}
    process = processes.start("hold_lease", record.folder, env=environment)
    assert processes.line(process) == str(process.pid)
    return process


@pytest.fixture
def reaped() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        processes.end(process)


def test_cancel_ends_the_launcher_and_waits_for_it(
    tmp_path: Path, output: Callable[..., list[str]], reaped: list[subprocess.Popen[str]]
) -> None:
    plan = study(tmp_path)
    finish(plan, "c000000")
    launcher = processes.start("slow_launcher", plan.folder)
    reaped.append(launcher)
    assert processes.line(launcher) == "ready"
    lines = output(cancel, tmp_path, "study")
    assert (plan.folder / "saved").exists(), "it came back before the jobs had saved their state"
    assert lines[-2:] == [
        "1 of 6 cells are finished and stay",
        f"5 are left: `diffsweep resume study --runs {tmp_path}`",
    ]
    assert plan.cell("c000000").done
    assert Monitor(plan).read().launcher == "interrupted"


def test_cancel_ends_jobs_without_a_launcher_and_only_those_of_this_sweep(
    tmp_path: Path, output: Callable[..., list[str]], reaped: list[subprocess.Popen[str]]
) -> None:
    plan, other = study(tmp_path), study(tmp_path, name="study_2")
    LaunchRecord("local", (), dead()).write(plan.folder)
    runs = [plan.run(cell) for cell in ("c000000", "c001000")]
    mine, theirs = job(runs[0].cell, plan.folder), job(runs[1].fit, other.folder)
    reaped += [mine, theirs]
    lines = output(cancel, tmp_path, "study")
    assert lines[0] == "stopping 1 job whose launcher is gone"
    assert mine.wait(60) == -signal.SIGTERM
    assert theirs.poll() is None
    assert output(cancel, tmp_path, "study")[0].startswith("0 of 6 cells are finished")


def test_cancel_says_where_to_say_it(tmp_path: Path) -> None:
    plan = study(tmp_path)
    LaunchRecord("local", (), replace(Process.current(), host="far")).write(plan.folder)
    with pytest.raises(ValueError, match=r"sweep study was launched on far: say `diffsweep cancel study .*` there"):
        cancel(tmp_path, "study")


def test_commands_to_type_are_short_where_runs_are_where_they_usually_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert study(tmp_path / "runs").command_for("resume") == "diffsweep resume study"
    assert study(tmp_path / "my runs").command_for("resume") == "diffsweep resume study --runs 'my runs'"


def test_cancel_of_a_sweep_that_is_over_touches_nothing(tmp_path: Path, output: Callable[..., list[str]]) -> None:
    plan = study(tmp_path)
    finish(plan, *plan.cells)
    LaunchRecord("local", (), None, ended=True).write(plan.folder)
    assert output(cancel, tmp_path, "study") == ["sweep study has no jobs", "6 of 6 cells are finished and stay"]


def test_cancel_takes_back_what_slurm_still_has(
    tmp_path: Path, output: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # In place of SLURM's programs: a queue in a file, from which scancel takes what it is told. Real ones are in
    # the tests of the cluster.
    queue, programs = tmp_path / "queue", tmp_path / "bin"
    programs.mkdir()
    queue.write_text("812_1|RUNNING|0:01|n1|None\n813|PENDING|0:00||Dependency\n999|RUNNING|0:01|n1|None\n")
    (programs / "squeue").write_text(f"#!/bin/sh\ncat {queue}\n")
    (programs / "scancel").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/told\ngrep -v -e "^812_1|" -e "^813|" {queue} > {queue}.new\n'
        f"mv {queue}.new {queue}\n"
    )
    (programs / "sacct").write_text("#!/bin/sh\nexit 1\n")
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    plan = study(tmp_path)
    jobs = (
        Job("fit", "f000", (), (), "812_0"),
        Job("fit", "f001", (), (), "812_1"),
        Job("cells", "f001", (), (1,), "813"),
    )
    LaunchRecord("slurm", jobs).write(plan.folder)
    lines = output(cancel, tmp_path, "study")
    assert lines[0] == "cancelling 2 SLURM jobs"
    assert lines[-1] == f"6 are left: `diffsweep resume study --runs {tmp_path}`"
    told = (tmp_path / "told").read_text().split()
    assert "813" in told
    assert not any("812_0" in word or "999" in word for word in told)
    assert queue.read_text().startswith("999|")


def test_hosts_of_this_machine_are_not_worth_a_column(tmp_path: Path) -> None:
    plan = study(tmp_path, 3, 1)
    look = busy(plan, 1)
    fits = {fit: replace(item, host=gethostname(), job="fit-1") for fit, item in look.fits.items()}
    (row,) = [line for line in picture(plan, replace(look, fits=fits)) if "123/5000" in line]
    assert row.rstrip().endswith("12:34  fit-1")


def test_what_is_held_up_for_a_minute_is_told_once_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffsweep.report import live

    clock = [0.0]
    monkeypatch.setattr(live, "monotonic", lambda: clock[0])
    plan = study(tmp_path)
    hint = "its partition is down (PartitionDown): choose another partition, or ask the site"
    held_up = ItemState("waiting", hint=hint, job="812_0", reason="PartitionDown")
    waiting = SweepState(dict.fromkeys(plan.fits, held_up), dict.fromkeys(plan.cells, ItemState("waiting")), "live")
    stream = io.StringIO()
    with LiveView(plan, Console(file=stream, width=200)) as shown:
        for clock[0] in (0.0, 59.0, 60.0, 200.0):
            shown.show(waiting)
            assert stream.getvalue().count(f"waiting: {hint} (1 job: 812_0)") == (clock[0] >= 60.0)
