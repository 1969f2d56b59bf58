"""How a sweep stands, from real records, real leases and real processes; only SLURM's answers are made up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import processes
from diffsweep.sweep.plan.jobs import Job, LaunchRecord
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.slurm import QueueEntry
from diffsweep.sweep.status import folder_state, job_state
from diffsweep.sweep.status.monitor import Monitor
from diffsweep.sweep.status.sweep_state import ItemState, SweepState
from diffsweep.sweep.store.lease import Lease
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.record import Record
from diffsweep.sweep.store.result import Result
from processes import dead

Hold = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    started: list[subprocess.Popen[str]] = []

    def start(record: Record, host: str = "", job: str = "", **status: object) -> subprocess.Popen[str]:
        options = [f"--host={host}", f"--job={job}", *([f"--status={json.dumps(status)}"] if status else [])]
        process = processes.start("hold_lease", record.folder, *options)
        started.append(process)
        assert processes.line(process) == str(process.pid)
        return process

    yield start
    for process in started:
        processes.end(process)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Two fits with two cells each: `c00` and `c01` of `f0`, `c10` and `c11` of `f1`."""
    return sweep(tmp_path / "runs")


def sweep(runs: Path, teacher: str = "", name: str = "study") -> Plan:
    signed = [
        SignedConfig(
            (f"schedule={schedule}", f"sampler={sampler}"),
            {"diffuser": {"teacher": teacher if i else ""}, "sampler": {"name": sampler}},
            {"sampler": sampler, "schedule": schedule},
            f"f{i}",
            f"c{i}{j}",
        )
        for i, schedule in enumerate(("cosine", "linear"))
        for j, sampler in enumerate(("ddim", "heun"))
    ]
    plan = Plan(runs / "sweeps" / name, runs).with_tasks(signed)
    plan.write()
    return plan


def fit(plan: Plan, name: str) -> Record:
    return plan.run(plan.fits[name][0]).fit


def train(plan: Plan, *names: str, seconds: float = 10.0) -> None:
    for name in names:
        plan.run(plan.fits[name][0]).fit.write_done({"fit": name, "steps": 100, "seconds": seconds})


def evaluate(plan: Plan, *cells: str, **result: float | str) -> None:
    for cell in cells:
        times = {"sample_seconds": 1.0, "evaluate_seconds": 1.0}
        plan.cell(cell).write_result(
            Result.parse({"cell": cell, "metric": "fd_digits", "fd_digits": 0.5, **times, **result})
        )


def jobs(ids: Sequence[str] = ("fit-0", "fit-1", "cells-0", "cells-1")) -> tuple[Job, ...]:
    names = ids or ("", "", "", "")
    return (
        Job("fit", "f0", ("c00", "c01"), (), names[0], "logs/fit-f0.log"),
        Job("fit", "f1", ("c10", "c11"), (), names[1], "logs/fit-f1.log"),
        Job("cells", "f0", ("c00", "c01"), (0,), names[2], "logs/cells-f0.log"),
        Job("cells", "f1", ("c10", "c11"), (1,), names[3], "logs/cells-f1.log"),
    )


def launch(plan: Plan, launcher: Process | None, *, ended: bool = False) -> None:
    LaunchRecord("local", jobs(), launcher, ended).write(plan.folder)


def later(seconds: int) -> Process:
    """This process as a launcher that says it launched that many seconds from now."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + seconds))
    return replace(Process.current(), time=moment)


def shift(path: Path, seconds: int) -> None:
    """Stamp a file with a time that many seconds from now."""
    moment = time.time() + seconds
    os.utime(path, (moment, moment))


def states(look: SweepState) -> dict[str, str]:
    return {name: item.state for name, item in (*look.fits.items(), *look.cells.items())}


# ---- records


def test_a_sweep_that_was_planned_and_never_launched(plan: Plan) -> None:
    look = Monitor(plan).read()
    assert look.launcher == "planned"
    assert set(states(look).values()) == {"missing"}
    assert look.cells["c00"].reason == "never begun"
    assert list(look.cells) == ["c00", "c01", "c10", "c11"]


def test_done_is_what_the_records_say_and_only_that(plan: Plan) -> None:
    train(plan, "f0")
    evaluate(plan, "c00", fd_digits=0.25, fd_digits_low=0.0, fd_digits_high=0.5)
    plan.cell("c01").write_status("done")
    (fit(plan, "f1").folder).mkdir(parents=True)
    (fit(plan, "f1").folder / "done.json").write_text('{"status": "do')
    look = Monitor(plan).read()
    assert states(look) == {
        "f0": "done", "f1": "missing", "c00": "done", "c01": "missing", "c10": "missing", "c11": "missing"
    }  # fmt: skip
    assert look.cells["c00"] == ItemState("done", metric="fd_digits", value=0.25, half=0.25, seconds=2.0)


def test_a_diverged_cell_is_done_and_has_no_value(plan: Plan) -> None:
    train(plan, "f0")
    evaluate(plan, "c00", fd_digits=float("nan"))
    item = Monitor(plan).read().cells["c00"]
    assert (item.state, item.value) == ("done", None)


def test_what_becomes_done_is_seen_and_then_remembered(plan: Plan) -> None:
    launch(plan, Process.current())
    watch = Monitor(plan)
    assert watch.read().counts == {"waiting": 4}
    train(plan, "f0", "f1")
    evaluate(plan, "c00", "c01", "c10", "c11")
    assert watch.read().counts == {"done": 4}
    (plan.cell("c00").folder / "result.json").unlink()
    assert watch.read().counts == {"done": 4}


def test_garbage_in_any_file_is_as_good_as_no_file(plan: Plan) -> None:
    for content in ("", "{", "[]", "\x00\xff", '{"state": "running", "step": "many", "time": 3}'):
        for record in (fit(plan, "f0"), plan.cell("c00")):
            record.folder.mkdir(parents=True, exist_ok=True)
            for name in ("status.json", "done.json", "result.json", "lease-000001.json", "metrics.jsonl"):
                (record.folder / name).write_text(content)
        (plan.folder / "jobs.json").write_text(content)
        look = Monitor(plan).read()
        assert look.counts == {"missing": 4}
        assert look.fits["f0"].step is None


def test_a_fit_that_was_cleared_away_behind_its_cells_is_not_missed(plan: Plan) -> None:
    evaluate(plan, "c00", "c01", "c10", "c11")
    launch(plan, dead())
    look = Monitor(plan).read()
    assert set(states(look).values()) == {"done"}
    assert look.launcher == "finished"


# ---- processes


def test_running_is_what_a_living_process_holds(plan: Plan, hold: Hold) -> None:
    launch(plan, Process.current())
    process = hold(fit(plan, "f0"), step=30, steps=120, loss=0.5, images_per_second=100.0, eta_seconds=9.0)
    watch = Monitor(plan)
    look = watch.read()
    item = look.fits["f0"]
    assert (item.state, item.step, item.steps, item.loss) == ("running", 30, 120, 0.5)
    assert (item.images_per_second, item.eta_seconds, item.job) == (100.0, 9.0, "fit-0")
    assert item.log == str(plan.folder / "logs/fit-f0.log")
    assert look.launcher == "live"
    assert {cell: look.cells[cell].state for cell in look.cells} == dict.fromkeys(plan.cells, "waiting")
    process.send_signal(signal.SIGKILL)
    process.wait()
    # The launcher lives, and may try it again.
    assert watch.read().fits["f0"].state == "waiting"
    launch(plan, dead())
    look = watch.read()
    assert (look.fits["f0"].state, look.fits["f0"].reason, look.fits["f0"].step) == ("missing", "interrupted", 30)
    assert look.launcher == "interrupted"
    assert look.over


def test_a_process_that_has_just_begun_does_not_boast_with_the_speed_of_the_one_before(plan: Plan, hold: Hold) -> None:
    fit(plan, "f0").folder.mkdir(parents=True)
    fit(plan, "f0").write_status("running", step=50, steps=100, images_per_second=1e6, eta_seconds=1.0)
    hold(fit(plan, "f0"))
    item = Monitor(plan).read().fits["f0"]
    assert (item.state, item.step, item.images_per_second, item.eta_seconds) == ("running", 50, None, None)


def test_a_failure_counts_until_somebody_tries_again(plan: Plan, hold: Hold) -> None:
    launch(plan, later(-60))
    record = fit(plan, "f0")
    record.folder.mkdir(parents=True)
    record.write_status("failed", reason=record.write_error(RuntimeError("the loss is nan")))
    watch = Monitor(plan)
    look = watch.read()
    assert look.fits["f0"].state == "failed"
    assert look.fits["f0"].reason == "RuntimeError: the loss is nan"
    assert [look.cells[cell].state for cell in ("c00", "c01", "c10")] == ["blocked", "blocked", "waiting"]
    assert look.cells["c00"].reason == "not run: fit f0 failed: RuntimeError: the loss is nan"
    # A new launch has it in its plan and has not come to it.
    launch(plan, later(60))
    assert Monitor(plan).read().fits["f0"].state == "waiting"
    # Another one, of whichever sweep, is at it just now.
    launch(plan, later(-60))
    process = hold(record)
    look = watch.read()
    assert (look.fits["f0"].state, look.cells["c00"].state) == ("running", "waiting")
    process.kill()
    process.wait()
    assert watch.read().fits["f0"].state == "failed"
    launch(plan, None, ended=True)
    look = watch.read()
    assert (look.fits["f0"].state, look.cells["c00"].state, look.cells["c10"].state) == ("failed", "blocked", "missing")
    assert look.launcher == "finished"


def test_an_error_is_outdated_by_a_later_attempt_and_not_by_an_earlier_one(plan: Plan) -> None:
    train(plan, "f0")
    cell = plan.cell("c00")
    cell.folder.mkdir(parents=True)
    cell.write_error(RuntimeError("first"))
    cell.write_status("running", stage="sample")
    shift(cell.error_file, -60)
    item = Monitor(plan).read().cells["c00"]
    assert (item.state, item.reason) == ("missing", "interrupted")
    # A launcher that saw it die says why, and does no more.
    cell.write_error(RuntimeError("killed"))
    shift(cell.error_file, +60)
    item = Monitor(plan).read().cells["c00"]
    assert (item.state, item.reason) == ("failed", "RuntimeError: killed")


def test_an_interrupted_job_of_a_living_launcher_is_not_waiting_for_anything(plan: Plan) -> None:
    launch(plan, later(-60))
    fit(plan, "f0").folder.mkdir(parents=True)
    fit(plan, "f0").write_status("waiting", step=7, steps=9, reason="interrupted")
    item = Monitor(plan).read().fits["f0"]
    assert (item.state, item.reason, item.step) == ("missing", "interrupted", 7)
    launch(plan, None, ended=True)
    look = Monitor(plan).read()
    assert (look.cells["c00"].state, look.cells["c00"].reason) == ("missing", "its training was interrupted")
    assert look.cells["c10"].reason == "never begun"
    launch(plan, later(60))
    assert Monitor(plan).read().fits["f0"].state == "waiting"


def test_a_fit_behind_a_failed_teacher_is_blocked_with_its_cells(tmp_path: Path) -> None:
    plan = sweep(tmp_path / "runs", teacher="f0")
    launch(plan, later(-60))
    record = fit(plan, "f0")
    record.folder.mkdir(parents=True)
    record.write_status("failed", reason=record.write_error(RuntimeError("oops")))
    look = Monitor(plan).read()
    assert (look.fits["f0"].state, look.fits["f1"].state) == ("failed", "blocked")
    assert {look.cells[cell].state for cell in plan.cells} == {"blocked"}
    assert look.cells["c11"].reason == "not run: fit f0 failed: RuntimeError: oops"


def test_a_cell_that_was_not_run_for_a_fit_that_is_trained_by_now_has_not_failed(plan: Plan) -> None:
    train(plan, "f0")
    cell = plan.cell("c00")
    cell.folder.mkdir(parents=True)
    cell.write_status("failed", reason=cell.write_error(ValueError("not run: fit f0 failed: oops")))
    assert Monitor(plan).read().cells["c00"].state == "missing"


def test_a_holder_on_another_host_is_believed_while_it_shows_signs_of_life(plan: Plan, hold: Hold) -> None:
    record = fit(plan, "f0")
    process = hold(record, host="far", step=1, steps=2)
    watch = Monitor(plan)
    item = watch.read().fits["f0"]
    assert (item.state, item.host) == ("running", "far")
    process.kill()
    process.wait()
    (lease,) = record.folder.glob("lease-*")
    shift(lease, -3600)
    watch = Monitor(plan)
    assert watch.read().fits["f0"].state == "missing"
    # Its clock may be an hour behind: that the stamp has moved is a sign of life.
    shift(lease, -3500)
    assert watch.read().fits["f0"].state == "running"
    assert Monitor(plan).read().fits["f0"].state == "missing"


def test_a_holder_is_asked_after_however_quiet_its_folder_is(
    plan: Plan, hold: Hold, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_state, "_SETTLED", 0.02)
    process = hold(fit(plan, "f0"))
    watch = Monitor(plan)
    for _ in range(3):
        assert watch.read().fits["f0"].state == "running"
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert watch.read().fits["f0"].state == "missing"


def test_a_launcher_on_another_host_is_believed_while_its_jobs_live(plan: Plan, hold: Hold) -> None:
    launch(plan, replace(Process.current(), host="far"))
    look = Monitor(plan).read()
    assert look.launcher == "elsewhere"
    assert look.cells["c10"].state == "missing"
    assert "far" in look.cells["c10"].reason
    process = hold(fit(plan, "f0"), host="far")
    watch = Monitor(plan)
    look = watch.read()
    assert (look.launcher, look.cells["c10"].state) == ("live", "waiting")
    process.kill()
    process.wait()
    # Between two jobs nobody holds anything.
    with Lease(fit(plan, "f0").folder, patience=0.6, heartbeat=0.1).acquire():
        pass
    assert watch.read().launcher == "live"


# ---- SLURM


def told(state: str, reason: str | None = None, node: str | None = None) -> QueueEntry:
    """One job as SLURM's queue or accounting has it."""
    return QueueEntry(state, reason, node, 0.0)


class Slurm:
    """Answers as SLURM would, from two tables that a test fills."""

    def __init__(self, **queue: QueueEntry) -> None:
        self.entries: dict[str, QueueEntry] | None = {name.removeprefix("j"): entry for name, entry in queue.items()}
        self.accounting: dict[str, QueueEntry] | None = {}
        self.asked = self.asked_history = 0

    def queue(self, ids: Sequence[str]) -> Mapping[str, QueueEntry] | None:
        self.asked += 1
        return None if self.entries is None else {name: self.entries[name] for name in ids if name in self.entries}

    def history(self, ids: Sequence[str]) -> Mapping[str, QueueEntry] | None:
        self.asked_history += 1
        return None if self.accounting is None else {n: self.accounting[n] for n in ids if n in self.accounting}


IDS = ("812_0", "812_1", "813", "814")


def on_slurm(plan: Plan, slurm: Slurm, *, ended: bool = False, every: float = 0.0) -> Monitor:
    LaunchRecord("slurm", jobs(IDS), None, ended).write(plan.folder)
    return Monitor(plan, slurm.queue, slurm.history, every)


RUNNING, PENDING = told("RUNNING", None, "gpu2"), told("PENDING", "Dependency")


def test_the_queue_tells_what_waits_and_what_has_started(plan: Plan) -> None:
    slurm = Slurm(j812_0=RUNNING, j812_1=told("PENDING", "Priority"), j813=PENDING, j814=PENDING)
    look = on_slurm(plan, slurm).read()
    assert look.launcher == "detached"
    assert not look.over
    assert (look.fits["f0"].state, look.fits["f0"].host, look.fits["f0"].job) == ("running", "gpu2", "812_0")
    assert (look.fits["f1"].state, look.fits["f1"].reason) == ("waiting", "Priority")
    assert look.counts == {"waiting": 4}


def test_a_job_of_cells_runs_one_of_them_at_a_time(plan: Plan, hold: Hold) -> None:
    train(plan, "f0")
    slurm = Slurm(j813=RUNNING, j814=PENDING, j812_1=PENDING)
    hold(plan.cell("c00"), host="gpu2", job="813", stage="sample")
    look = on_slurm(plan, slurm).read()
    assert (look.cells["c00"].state, look.cells["c00"].stage, look.cells["c00"].job) == ("running", "sample", "813")
    assert look.cells["c01"].state == "waiting"


@pytest.mark.parametrize("word", ["OUT_OF_MEMORY", "NODE_FAIL", "TIMEOUT", "CANCELLED by 1000", "FAILED"])
def test_a_job_that_left_the_queue_without_a_result_failed_with_the_word_of_slurm(plan: Plan, word: str) -> None:
    slurm = Slurm(j812_1=PENDING, j814=PENDING)
    slurm.accounting = {"812_0": told(word), "813": told("CANCELLED")}
    watch = on_slurm(plan, slurm)
    look = watch.read()
    assert (look.fits["f0"].state, look.fits["f0"].reason) == ("failed", f"its SLURM job 812_0: {word.split()[0]}")
    assert look.cells["c00"].state == "blocked"
    assert look.cells["c10"].state == "waiting"
    asked = slurm.asked_history
    watch.read()
    assert slurm.asked_history == asked, "what accounting has said it need not say again"


def test_without_accounting_the_log_is_all_there_is(plan: Plan) -> None:
    train(plan, "f0")
    slurm = Slurm()
    slurm.accounting = None
    look = on_slurm(plan, slurm).read()
    log = plan.folder / "logs/cells-f0.log"
    assert look.cells["c00"].reason == f"its SLURM job 813 ended without a word: see {log}"
    assert look.launcher == "interrupted"


def test_a_reason_of_its_own_is_better_than_slurms_and_an_old_one_is_not(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = fit(plan, "f0")
    record.folder.mkdir(parents=True)
    monkeypatch.setenv("SLURM_JOB_ID", "812_0")
    record.write_status("failed", reason=record.write_error(RuntimeError("mine")))
    monkeypatch.delenv("SLURM_JOB_ID")
    slurm = Slurm(j812_1=PENDING, j814=PENDING)
    slurm.accounting = {"812_0": told("FAILED")}
    assert on_slurm(plan, slurm).read().fits["f0"].reason == "RuntimeError: mine"
    monkeypatch.setenv("SLURM_JOB_ID", "700")
    record.write_status("failed", reason=record.write_error(RuntimeError("of another job")))
    slurm.accounting = {"812_0": told("OUT_OF_MEMORY")}
    assert on_slurm(plan, slurm).read().fits["f0"].reason == "its SLURM job 812_0: OUT_OF_MEMORY"


def test_a_requeued_job_waits_though_its_process_died(plan: Plan, hold: Hold) -> None:
    hold(fit(plan, "f0"), host="gpu1", job="812_0", step=40, steps=100)
    slurm = Slurm(j812_0=RUNNING, j812_1=PENDING, j813=PENDING, j814=PENDING)
    watch = on_slurm(plan, slurm)
    assert watch.read().fits["f0"].state == "running"
    assert slurm.entries is not None
    slurm.entries["812_0"] = told("PENDING", "BeginTime")
    item = watch.read().fits["f0"]
    assert (item.state, item.reason, item.step) == ("waiting", "BeginTime", 40)


class Clock:
    """Stands where a test puts it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(job_state, "time", clock)
    return clock


def test_the_queue_is_asked_seldom_and_not_for_what_is_done(plan: Plan, clock: Clock) -> None:
    slurm = Slurm(j812_0=RUNNING, j812_1=PENDING, j813=PENDING, j814=PENDING)
    watch = on_slurm(plan, slurm, every=15)
    for _ in range(5):
        watch.read()
        clock.now += 2.9
    assert slurm.asked == 1
    clock.now += 1
    watch.read()
    assert slurm.asked == 2
    train(plan, "f0", "f1")
    evaluate(plan, *plan.cells)
    clock.now += 16
    assert watch.read().launcher == "finished"
    assert slurm.asked == 2
    assert on_slurm(plan, slurm).read().launcher == "finished"
    assert slurm.asked == 2
    assert slurm.asked_history == 0


def test_a_job_that_has_just_left_the_queue_is_given_time_to_show_its_files(plan: Plan, clock: Clock) -> None:
    slurm = Slurm(j812_0=RUNNING, j812_1=PENDING, j813=PENDING, j814=PENDING)
    watch = on_slurm(plan, slurm, every=15)
    assert watch.read().fits["f0"].state == "running"
    slurm.entries = {"812_1": PENDING, "814": PENDING}
    clock.now += 16
    look = watch.read()
    assert (look.fits["f0"].state, look.cells["c00"].state) == ("waiting", "waiting")
    clock.now += 16
    assert watch.read().fits["f0"].state == "failed"


def test_without_an_answer_of_slurm_nothing_is_declared_dead(plan: Plan) -> None:
    slurm = Slurm()
    slurm.entries = None
    look = on_slurm(plan, slurm).read()
    assert set(states(look).values()) == {"waiting"}
    assert look.fits["f0"].reason == "SLURM cannot be asked from here"
    assert look.launcher == "detached"


def test_an_ended_sweep_on_slurm_asks_only_for_the_reasons(plan: Plan) -> None:
    train(plan, "f0", "f1")
    evaluate(plan, "c00", "c01", "c10")
    slurm = Slurm()
    slurm.accounting = {"814": told("TIMEOUT")}
    look = on_slurm(plan, slurm, ended=True).read()
    assert (look.cells["c11"].state, look.cells["c11"].reason) == ("failed", "its SLURM job 814: TIMEOUT")
    assert look.launcher == "finished"
    assert slurm.asked == 0


# ---- time


def test_the_eta_adds_what_is_left_and_shares_it_among_what_runs(plan: Plan, hold: Hold) -> None:
    launch(plan, Process.current())
    hold(fit(plan, "f0"), step=25, steps=100, eta_seconds=30.0)
    look = Monitor(plan).read()
    # 30 s of the running one, and 40 s of the other if it is as slow; no evaluation has been seen.
    assert look.eta_seconds == pytest.approx(70.0)
    assert look.eta_partial
    hold(fit(plan, "f1"), step=25, steps=100, eta_seconds=60.0)
    assert Monitor(plan).read().eta_seconds == pytest.approx(60.0)
    assert look.elapsed_seconds is not None
    assert 0 <= look.elapsed_seconds < 60


def test_the_eta_counts_evaluations_once_one_is_timed(plan: Plan, hold: Hold) -> None:
    launch(plan, Process.current())
    train(plan, "f0", seconds=100.0)
    evaluate(plan, "c00")
    hold(plan.cell("c01"))
    look = Monitor(plan).read()
    # One training of 100 s and three evaluations of 2 s, the running one counted whole.
    assert look.eta_seconds == pytest.approx(106.0)
    assert not look.eta_partial


def test_nothing_that_runs_has_no_eta(plan: Plan) -> None:
    launch(plan, Process.current())
    assert Monitor(plan).read().eta_seconds is None
