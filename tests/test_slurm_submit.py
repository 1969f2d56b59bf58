"""Callables become jobs of a real cluster: few submissions, nothing pending for ever, nothing queued by halves."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diffsweep.sweep import slurm
from diffsweep.sweep.slurm import Resources, Work
from slurm import Cluster, need_slurm
from slurm_callables import (
    Exit,
    Record,
    RecordOfEachTask,
    Resumes,
    Sleep,
    at_once,
    fail_after_a_while,
    take_a_second,
    wait_for_another,
    wait_for_restart,
)


@pytest.fixture
def site(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, as the one that this process talks to."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.env[name])
    yield cluster
    cluster.clear()


def submit(folder: Path, *works: Work, **options: Any) -> dict[int, str]:
    plain: dict[str, Any] = {"throttle": None, "environment": {}, "job_name": "tests", "on_submitted": lambda ids: None}
    return slurm.submit(works, folder / "jobs", **(plain | options))


def wait(site: Cluster, ids: dict[int, str]) -> None:
    site.wait_until(lambda: slurm.queue(ids.values()) == {}, f"the end of {ids}")


def test_works_of_equal_resources_are_one_array_of_which_few_run_at_once(site: Cluster, tmp_path: Path) -> None:
    known: list[dict[int, str]] = []
    small, big = (
        Resources(memory="100MB", setup=("export WHO=setup WHERE=setup",)),
        Resources(gres="gpu:1", time="0:10:00"),
    )
    # Nobody ends before two have begun; and two that run side by side are seen to.
    works = [
        Work(Record(tmp_path / str(i)), f"w{i}", big)
        if i in (1, 3)
        else Work(Record(tmp_path / str(i), wait_for_another), f"w{i}", small)
        for i in range(7)
    ]
    environment = {"WHO": 'it\'s "$HOME"\n and `more`'}
    ids = submit(tmp_path, *works, throttle=2, environment=environment, on_submitted=known.append)
    bases = [ids[i].partition("_")[0] for i in range(7)]
    assert len(set(bases)) == 2
    assert bases[1] == bases[3] != bases[0]
    assert len(set(ids.values())) == 7
    assert [len(some) for some in known] == [5, 7]
    assert known[-1] == ids
    wait(site, ids)
    environments = [json.loads((tmp_path / str(i)).read_text()) for i in range(7)]
    moments = [one["begin"] for i, one in enumerate(environments) if i not in (1, 3)]
    at_once = [
        sum(one["begin"] <= now < one["end"] for i, one in enumerate(environments) if i not in (1, 3))
        for now in moments
    ]
    assert max(at_once) == 2
    assert {one["WHO"] for one in environments} == set(environment.values())
    assert [one.get("WHERE") for one in environments] == [None if i in (1, 3) else "setup" for i in range(7)]
    assert [i for i, one in enumerate(environments) if "CUDA_VISIBLE_DEVICES" in one] == [1, 3]
    for i, one in enumerate(environments):
        assert f"{one['SLURM_ARRAY_JOB_ID']}_{one['SLURM_ARRAY_TASK_ID']}" == ids[i]
        assert (tmp_path / "jobs" / f"{ids[i]}_0_log.out").exists()


def test_arrays_are_cut_at_the_size_that_the_cluster_takes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_slurm()
    with Cluster(max_array_size=3) as site:
        for name in ("SLURM_CONF", "PATH"):
            monkeypatch.setenv(name, site.env[name])
        ids = submit(tmp_path, *[Work(Record(tmp_path / str(i)), f"w{i}") for i in range(7)])
        assert [name.partition("_")[2] for name in ids.values()] == ["0", "1", "2", "0", "1", "2", ""]
        wait(site, ids)
    assert all((tmp_path / str(i)).exists() for i in range(7))


def test_what_depends_on_a_failure_is_cancelled_and_the_last_comes_after_all(site: Cluster, tmp_path: Path) -> None:
    names = ("good", "bad", "after-good", "after-bad", "after-after-bad", "after-after-good", "after-both")
    behind = ((), (), (0,), (1,), (3,), (2,), (0, 1))
    first = {"bad": fail_after_a_while, "after-after-good": take_a_second}
    works = [
        Work(Record(tmp_path / name, first.get(name, at_once)), name, after=after)
        for name, after in zip(names, behind, strict=True)
    ]
    # What comes after others may stand before them.
    order = [5, 0, 3, 6, 2, 1, 4]
    shuffled = [
        Work(one.call, one.name, after=tuple(order.index(i) for i in one.after)) for one in (works[i] for i in order)
    ]
    ids = submit(tmp_path, *shuffled, last=Work(Record(tmp_path / "last"), "last"))
    assert set(ids) == set(range(8))
    wait(site, ids)
    ran = {name for name in names if (tmp_path / name).exists()}
    assert ran == {"good", "after-good", "after-after-good"}
    states = {name: site.state(ids[order.index(i)]) for i, name in enumerate(names)}
    assert states == {name: "COMPLETED" if name in ran else "CANCELLED" for name in names} | {"bad": "FAILED"}
    begin = {name: json.loads((tmp_path / name).read_text())["begin"] for name in (*ran, "last")}
    assert max(begin, key=lambda name: begin[name]) == "last"
    assert "OSError: the disk" in (tmp_path / "jobs" / f"{ids[order.index(1)]}_0_log.out").read_text()


def test_a_refused_submission_is_one_line_and_leaves_nothing_queued(
    site: Cluster, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    works = [
        Work(Sleep(), "fine"),
        Work(Exit(), "fit 3", Resources(partition="nope")),
    ]
    known: list[dict[int, str]] = []
    refused = (
        r"^SLURM refuses fit 3: [Ii]nvalid partition.* \(resources\.partition=nope\); partitions here: high, normal$"
    )
    with pytest.raises(ValueError, match=refused):
        submit(tmp_path, *works, on_submitted=known.append)
    assert len(known) == 1
    wait(site, known[0])
    assert site.state(known[0][0]) == "CANCELLED"
    assert capfd.readouterr().err == ""


def test_a_submission_that_is_interrupted_is_taken_back(site: Cluster, tmp_path: Path) -> None:
    def interrupt(ids: dict[int, str]) -> None:
        if len(ids) == 3:
            raise KeyboardInterrupt

    works = [Work(Sleep(), "w", after=(0,) if i else ()) for i in range(5)]
    with pytest.raises(KeyboardInterrupt):
        submit(tmp_path, *works, on_submitted=interrupt)
    site.wait_until(lambda: slurm.queue("tests") == {}, "an empty queue")


def test_a_requeued_job_runs_its_callable_again(site: Cluster, tmp_path: Path) -> None:
    dependent = Work(Record(tmp_path / "dependent"), "dependent", after=(0,))
    ids = submit(tmp_path, *[Work(Record(tmp_path / str(i), wait_for_restart), f"w{i}") for i in range(2)], dependent)
    # The dependent comes after w0 here, whose place is 0.
    site.wait_until(lambda: all((tmp_path / f"{i}.first").exists() for i in range(2)), "both to run")
    for i in range(2):
        site.scontrol("requeue", ids[i])
    for i in range(2):
        site.start_now(ids[i], 1)
    wait(site, ids)
    for i in range(2):
        variables = json.loads((tmp_path / str(i)).read_text())
        assert variables["SLURM_RESTART_COUNT"] == "1"
        assert f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}" == ids[i]
        log = (tmp_path / "jobs" / f"{ids[i]}_0_log.out").read_text()
        assert log.count("Starting with JobEnvironment") == 2
    assert (tmp_path / "dependent").exists()


@pytest.mark.slow
def test_a_job_at_its_time_limit_saves_and_is_requeued_as_often_as_allowed(site: Cluster, tmp_path: Path) -> None:
    stated, default = Resources(time="10:00"), Resources()
    site.scontrol("update", "partitionname=normal", "defaulttime=10")
    try:
        saving = [Work(Resumes(tmp_path / name), name, one) for name, one in (("stated", stated), ("default", default))]
        deaf = Work(Sleep(tmp_path / "deaf.begun"), "deaf", stated)
        ids = submit(tmp_path, *saving, deaf, signal_seconds=100)
        never = submit(tmp_path, *[Work(Resumes(tmp_path / f"{one.name}2"), one.name, one.resources) for one in saving],
                       signal_seconds=100, requeues=0)  # fmt: skip
        site.wait_until(lambda: len(list(tmp_path.glob("*.begun"))) == 5, "all to be at work")
        for job in (*ids.values(), *never.values()):
            site.warn(job)
        for job in (ids[0], ids[1]):
            site.start_now(job, 1, minutes=10)
        wait(site, ids | {place + 10: name for place, name in never.items()})
    finally:
        site.scontrol("update", "partitionname=normal", "defaulttime=30")
    states = [site.state(name) for name in (*ids.values(), *never.values())]
    assert dict(zip((*ids, "stated2", "default2"), states, strict=True)) == {
        0: "COMPLETED", 1: "COMPLETED", 2: "FAILED", "stated2": "FAILED", "default2": "FAILED"
    }  # fmt: skip
    for name in never.values():
        assert "timed-out too many times" in (tmp_path / "jobs" / f"{name}_0_log.out").read_text()


def test_tasks_get_the_processors_and_nodes_that_were_asked_for(site: Cluster, tmp_path: Path) -> None:
    resources = Resources(cpus=2, nodes=2, tasks_per_node=2, extra={"comment": "two words", "exclusive": False})
    ids = submit(tmp_path, Work(RecordOfEachTask(tmp_path / "record", tmp_path / "go"), "w", resources))
    site.wait_for_states([ids[0]], "RUNNING")
    step = ("scontrol", "show", "step", f"{ids[0]}.0")
    site.wait_until(lambda: "CPUs=8 " in site.run(*step, check=False), "a step of 8 processors")
    assert "Comment=two words" in site.scontrol("show", "job", ids[0])
    (tmp_path / "go").touch()
    wait(site, ids)
    environments = [json.loads((tmp_path / "record" / f"{i}.json").read_text()) for i in range(4)]
    assert len({one["SLURMD_NODENAME"] for one in environments}) == 2
    assert {one["SLURM_CPUS_PER_TASK"] for one in environments} == {"2"}


def test_a_submitter_that_is_a_job_itself_passes_nothing_of_it_on(
    site: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "7")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "7")
    ids = submit(tmp_path, Work(Record(tmp_path / "record"), "w"))
    wait(site, ids)
    variables = json.loads((tmp_path / "record").read_text())
    assert "SLURM_CPUS_PER_TASK" not in variables
    assert "SLURM_RESTART_COUNT" not in variables
    assert "TimeLimit=00:07:00" in site.scontrol("show", "job", ids[0])


def test_the_queue_tells_tasks_one_by_one(site: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A user's own taste in output must not hide jobs.
    monkeypatch.setenv("SQUEUE_STATES", "RUNNING")
    monkeypatch.setenv("SQUEUE_FORMAT", "%j")
    works = [Work(Sleep(), f"w{i}", after=(0,) if i == 3 else ()) for i in range(4)]
    ids = submit(tmp_path, *works, throttle=1, job_name="tests: one | two")

    def reasons() -> list[str | None]:
        entries = slurm.queue(ids.values()) or {}
        return [entries[ids[i]].reason if ids[i] in entries else None for i in range(4)]

    # SLURM gives its reasons when it has thought about a job.
    why = [None, "JobArrayTaskLimit", "JobArrayTaskLimit", "Dependency"]
    site.wait_until(lambda: reasons() == why, "SLURM to say why three of four wait")
    site.wait_until(lambda: (slurm.queue([ids[0]]) or {})[ids[0]].seconds >= 1, "a second to pass")
    queue = slurm.queue(ids.values())
    assert queue is not None
    assert queue == slurm.queue("tests: one | two")
    assert set(queue) == set(ids.values())
    assert [queue[ids[i]].state for i in range(4)] == ["RUNNING", "PENDING", "PENDING", "PENDING"]
    assert [queue[ids[i]].reason for i in range(4)] == why
    assert [queue[ids[i]].node for i in (1, 2, 3)] == [None] * 3
    assert queue[ids[0]].node in ("gpu1", "gpu2", "gpu3", "gpu4")
    assert 1 <= queue[ids[0]].seconds < 600
    assert set(slurm.queue([ids[1], "999999"]) or {}) == {ids[1]}
    slurm.cancel([ids[1], ids[3]])
    site.wait_until(lambda: set(slurm.queue(ids.values()) or {}) == {ids[0], ids[2]}, "two to be left")
    slurm.cancel(ids.values())
    wait(site, ids)
    slurm.cancel([*ids.values(), "999999"])
    never = submit(tmp_path, *[Work(Exit(), "w", Resources(extra={"begin": "now+600"})) for _ in range(3)])
    site.run("scancel", never[0].partition("_")[0])
    ids |= {place + 10: name for place, name in never.items()}
    # SLURM may keep no record of a task that was cancelled alone before it started.
    del ids[1]

    def states() -> list[str]:
        history = slurm.history(ids.values()) or {}
        return [history[name].state if name in history else "" for name in ids.values()]

    site.wait_until(lambda: states() == ["CANCELLED"] * 6, "sacct to know all")


def test_what_nobody_can_tell_is_not_taken_for_nothing(
    site: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert slurm.queue(["999999"]) == {}
    assert slurm.queue([]) == {}
    assert slurm.history(["999999"]) == {}
    assert slurm.available()
    ids = submit(tmp_path, Work(Exit(3), "w"))
    wait(site, ids)

    def states() -> list[tuple[str, str]]:
        return [(entry.state, entry.exit_code) for entry in (slurm.history(ids.values()) or {}).values()]

    # The state may be known some moments before the exit code is.
    site.wait_until(lambda: states() == [("FAILED", "3:0")], "sacct to know it")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", site.without_sacct()["PATH"])
        assert slurm.history(ids.values()) is None
        again = submit(tmp_path, Work(Record(tmp_path / "record"), "w"))
        wait(site, again)
        assert (tmp_path / "record").exists()
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert slurm.queue(ids.values()) is None
        assert slurm.history(ids.values()) is None
        assert not slurm.available()
        with pytest.raises(ValueError, match=r"no SLURM here"):
            submit(tmp_path, Work(Exit(), "w"))


@pytest.mark.slow
def test_without_the_controller_the_queue_is_unknown_and_jobs_cannot_be_cancelled(site: Cluster) -> None:
    with site.controller_down():
        assert slurm.queue(["1", "2"]) is None
        with pytest.raises(ValueError, match=r"^SLURM refuses to cancel: .*[Uu]nable to contact slurm controller"):
            slurm.cancel(["1"])


def test_resources_come_from_a_config() -> None:
    full = Resources.of(
        {"time": "1-12:00:00", "memory": "16GB", "cpus": 4, "setup": ["a", "b"], "extra": {"mail_type": "END"}}
    )
    assert full == Resources(time="1-12:00:00", memory="16GB", cpus=4, setup=("a", "b"), extra={"mail_type": "END"})
    assert Resources.of(dict.fromkeys(("partition", "setup", "extra", "time"))) == Resources()
    assert Resources.of({"setup": "module load cuda"}).setup == ("module load cuda",)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"gpus": 2}, r"resources have no 'gpus': choose from partition, .*, tasks_per_node; others go into extra"),
        ({"time": "2 hours"}, r"time='2 hours': give minutes, or 'D-HH:MM:SS'"),
        ({"time": True}, r"time=True"),
        ({"time": 0}, r"time=0"),
        ({"memory": 16}, r"memory=16: .* as 16GB"),
        ({"memory": "1.5GB"}, r"memory='1.5GB'"),
        ({"cpus": 0}, r"cpus=0: give a whole number of 1 or more"),
        ({"nodes": "2"}, r"nodes='2'"),
        ({"partition": "a\nb"}, r"partition='a\\nb'"),
        ({"setup": [1]}, r"setup=\(1,\)"),
        ({"extra": {"array": "0-3"}}, r"extra.array is set by diffsweep itself"),
        ({"extra": {"cpus_per_task": 3}}, r"extra.cpus_per_task has a place of its own: cpus=..."),
        ({"extra": {"--reservation": "x"}}, r"extra.--reservation is no option"),
        ({"extra": {"reservation": None}}, r"extra.reservation=None"),
        ({"extra": "x"}, r"extra='x'"),
    ],
)
def test_bad_resources_are_one_line(mapping: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        Resources.of(mapping)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("time", ["7", "7:30", "1:02:03", "2-03", "2-03:04", "2-03:04:05", 7])
def test_times_are_read_as_slurm_reads_them(site: Cluster, time: str | int) -> None:
    given = [
        "sbatch",
        "--parsable",
        "--hold",
        "--partition=high",
        f"--time={time}",
        "--output=/dev/null",
        "--wrap=true",
    ]
    job = subprocess.run(given, check=True, capture_output=True, text=True).stdout.strip()
    days, _, clock = site.squeue(f"--jobs={job}", "--format=%l").strip().rpartition("-")
    seconds = 0
    for part in clock.split(":"):
        seconds = 60 * seconds + int(part)
    # SLURM itself keeps whole minutes, rounded up.
    assert slurm.minutes(time) == (86400 * int(days or 0) + seconds) // 60
