"""Plans without any process: what is asked for twice, what is done, what must come before what."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf

from diffsweep.sweep.execute.retry import RetryPolicy
from diffsweep.sweep.plan.jobs import Job, LaunchRecord, RemainingWork
from diffsweep.sweep.plan.mode import Mode
from diffsweep.sweep.plan.plan import Plan, SignedConfig
from diffsweep.sweep.store.process import Process
from diffsweep.sweep.store.result import Result


def signed(fit: str, cell: str, *overrides: str, config: Mapping[str, Any] | None = None) -> SignedConfig:
    return SignedConfig(overrides, config or {"trainer": {"devices": 1}}, {"sampler": "ddim"}, fit, cell)


def plan(tmp_path: Path, entries: Sequence[SignedConfig]) -> Plan:
    return Plan(tmp_path / "sweeps" / "one", tmp_path).with_tasks(entries)


def grid(tmp_path: Path) -> Plan:
    """Two schedules, each with three samplers."""
    return plan(
        tmp_path,
        [
            signed(f"fit-{schedule}", f"{schedule}-{sampler}", f"schedule={schedule}", f"sampler={sampler}")
            for schedule in ("cosine", "linear")
            for sampler in ("ddim", "heun", "unipc")
        ],
    )


def train(one: Plan, fit: str) -> None:
    one.run(one.fits[fit][0]).fit.write_done({"steps": 1})


def test_a_plan_survives_the_disk(tmp_path: Path) -> None:
    before = grid(tmp_path)
    before.write()
    after = Plan.read(before.folder)
    assert after.tasks == before.tasks
    assert after.parts == before.parts
    assert after.fits == {
        f"fit-{schedule}": [f"{schedule}-{sampler}" for sampler in ("ddim", "heun", "unipc")]
        for schedule in ("cosine", "linear")
    }
    assert after.config("linear-heun") == {"trainer": {"devices": 1}}


def test_parts_that_cells_share_are_written_once(tmp_path: Path) -> None:
    shared = {"width": 64}
    entries = [signed("f", f"c{i}", f"x={i}", config={"backbone": shared, "sampler": {"nfe": i}}) for i in range(50)]
    one = plan(tmp_path, entries)
    one.write()
    assert one.file.read_text().count('"width"') == 1
    assert [one.config(f"c{i}")["sampler"]["nfe"] for i in range(50)] == list(range(50))


@pytest.mark.parametrize("content", ["", "{}", '{"tasks": 3}', "[]"])
def test_a_plan_that_cannot_be_read_says_so_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ValueError, match=r"plan\.json") as caught:
        Plan.read(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="holds no sweep"):
        Plan.read(tmp_path / "absent")


def test_an_axis_that_changes_nothing_is_told_and_only_that(tmp_path: Path) -> None:
    entries = [signed("f", f"c{nfe}", f"trainer.threads={t}", f"sampler.nfe={nfe}") for t in (1, 2) for nfe in (5, 9)]
    (said,) = plan(tmp_path, entries).warnings
    assert said.startswith("trainer.threads changes no result")
    assert grid(tmp_path).warnings == ()


def test_a_cell_that_is_asked_for_twice_is_told(tmp_path: Path) -> None:
    entries = [signed("f", "c", "a=1", "b=1"), signed("f", "d", "a=1", "b=2"), signed("f", "c", "a=2", "b=2")]
    (said,) = plan(tmp_path, entries).warnings
    assert "1 of 3 combinations" in said
    assert "a=2 b=2 and a=1 b=1" in said


def test_what_is_done_is_not_to_do(tmp_path: Path) -> None:
    one = grid(tmp_path)
    assert RemainingWork.of(one) == RemainingWork(("fit-cosine", "fit-linear"), tuple(one.cells), ())
    train(one, "fit-cosine")
    one.cell("cosine-heun").write_result(Result.parse({"metric": "m", "m": 1.0}))
    todo = RemainingWork.of(one)
    assert todo.fits == ("fit-linear",)
    assert todo.done == ("cosine-heun",)
    assert set(todo.cells) == set(one.cells) - {"cosine-heun"}
    assert RemainingWork.of(one, Mode.FORCE) == RemainingWork(("fit-cosine", "fit-linear"), tuple(one.cells), ())


def test_what_failed_is_redone_unless_asked_to_be_left(tmp_path: Path) -> None:
    one = grid(tmp_path)
    train(one, "fit-cosine")
    one.cell("cosine-ddim").write_error(RuntimeError("no"))
    one.run("linear-ddim").fit.write_error(RuntimeError("diverged"))
    assert set(RemainingWork.of(one).cells) == set(one.cells)
    cached = RemainingWork.of(one, Mode.CACHED)
    assert set(cached.failed) == {"cosine-ddim", "linear-ddim", "linear-heun", "linear-unipc"}
    assert cached.cells == ("cosine-heun", "cosine-unipc")
    assert cached.fits == ()


def test_cells_come_after_their_fit_and_students_after_their_teachers(tmp_path: Path) -> None:
    def config(teacher: str | None = None, weak: str | None = None) -> dict[str, Any]:
        return {"diffuser": {"teacher": teacher}, "guidance": {"weak": weak} if weak else {}}

    one = plan(
        tmp_path,
        [
            signed("student", "s", "a=1", config=config(teacher="teacher")),
            signed("guided", "g", "a=2", config=config(weak="poor")),
            signed("teacher", "t", "a=3", config=config()),
            signed("poor", "p", "a=4", config=config()),
        ],
    )
    jobs = RemainingWork.of(one).jobs(one)
    behind = {(job.kind, job.fit): {(jobs[i].kind, jobs[i].fit) for i in job.after} for job in jobs}
    assert behind["fit", "student"] == {("fit", "teacher")}
    assert behind["cells", "student"] == {("fit", "student"), ("fit", "teacher")}
    assert behind["cells", "guided"] >= {("fit", "guided"), ("fit", "poor")}
    assert behind["fit", "teacher"] == set()
    assert all(place < index for index, job in enumerate(jobs) for place in job.after)
    train(one, "teacher")
    assert all(job.fit != "teacher" for job in RemainingWork.of(one).jobs(one) if job.kind == "fit")


def test_every_missing_cell_is_in_exactly_one_job(tmp_path: Path) -> None:
    one = grid(tmp_path)
    for size in (None, 1, 2, 5):
        jobs = RemainingWork.of(one).jobs(one, size)
        told = [cell for job in jobs if job.kind == "cells" for cell in job.cells]
        assert sorted(told) == sorted(one.cells)
        assert all(len(job.cells) <= (size or 3) for job in jobs if job.kind == "cells")


def test_jobs_survive_the_disk(tmp_path: Path) -> None:
    launched = LaunchRecord("slurm", (Job("fit", "f", ("c",), (), "12_3", "x.log"),), Process.current())
    launched.write(tmp_path)
    assert LaunchRecord.read(tmp_path) == launched
    launched.end(tmp_path)
    read = LaunchRecord.read(tmp_path)
    assert read is not None
    assert read.ended
    assert read.launcher is None
    assert json.loads((tmp_path / "jobs.json").read_text())["jobs"][0]["id"] == "12_3"


# ---- what becomes of a job that has ended


@pytest.fixture
def one(tmp_path: Path) -> Plan:
    return grid(tmp_path)


FIT = Job("fit", "fit-cosine", ("cosine-ddim", "cosine-heun", "cosine-unipc"))
CELLS = Job("cells", "fit-cosine", ("cosine-ddim", "cosine-heun", "cosine-unipc"))


def test_a_killed_fit_is_tried_again_and_then_told_of(one: Plan) -> None:
    retry_policy = RetryPolicy(one, 2)
    first, second = retry_policy.remaining_job(FIT, -9, {}), retry_policy.remaining_job(FIT, -9, {})
    for again in (first, second):
        assert again is not None
        assert again.fit == FIT.fit
        assert set(again.cells) == set(FIT.cells)
    # In the config of another cell, should it be a cell's own part that kills.
    assert first is not None
    assert first.cells[0] != FIT.cells[0]
    assert one.run("cosine-ddim").fit.error() is None
    assert retry_policy.remaining_job(FIT, -9, {}) is None
    assert "killed by SIGKILL" in str(one.run("cosine-ddim").fit.error())


def test_a_fit_that_said_why_it_failed_is_not_tried_again(one: Plan) -> None:
    fit = one.run("cosine-ddim").fit
    fit.write_error(ValueError("the loss is nan"))
    assert RetryPolicy(one, 5).remaining_job(FIT, 1, {}) is None
    assert fit.error() == "ValueError: the loss is nan"


def test_a_killed_process_costs_the_cell_that_it_was_at(one: Plan) -> None:
    retry_policy = RetryPolicy(one, 1)
    rest = retry_policy.remaining_job(CELLS, -9, {"cosine-ddim": True})
    assert rest is not None
    assert rest.cells == ("cosine-heun", "cosine-unipc")
    rest = retry_policy.remaining_job(rest, -11, {})
    assert rest is not None
    assert rest.cells == ("cosine-unipc",)
    assert "killed by SIGSEGV" in str(one.cell("cosine-heun").error())
    assert one.cell("cosine-unipc").error() is None
    assert retry_policy.remaining_job(rest, 0, {"cosine-unipc": True}) is None


def test_a_cell_that_was_finished_just_before_the_kill_is_not_blamed(one: Plan) -> None:
    one.cell("cosine-ddim").write_result(Result.parse({"metric": "m", "m": 1.0}))
    rest = RetryPolicy(one, 0).remaining_job(CELLS, -9, {})
    assert rest is not None
    assert rest.cells == ("cosine-heun", "cosine-unipc")
    assert one.cell("cosine-ddim").error() is None
    assert one.cell("cosine-heun").error() is None


@pytest.mark.parametrize("code", [143, 130, 140, -15, -2, -12])
def test_an_interruption_is_no_failure(one: Plan, code: int) -> None:
    retry_policy = RetryPolicy(one, 3)
    assert retry_policy.remaining_job(FIT, code, {}) is None
    assert retry_policy.remaining_job(CELLS, code, {}) is None
    assert one.run("cosine-ddim").fit.error() is None
    assert one.cell("cosine-ddim").error() is None


def test_an_exit_without_a_word_is_told_of(one: Plan) -> None:
    assert RetryPolicy(one, 3).remaining_job(CELLS, 3, {"cosine-ddim": True, "cosine-heun": False}) is None
    assert "exit code 3" in str(one.cell("cosine-unipc").error())


@pytest.mark.parametrize(
    "path", sorted(Path(__file__).parents[1].glob("conf/hydra/[ls]*/*.yaml")), ids=lambda path: path.stem
)
def test_plugins_take_what_their_yaml_lists_with_the_same_defaults(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    options: dict[str, Any] = OmegaConf.to_container(OmegaConf.create(text))  # type: ignore[assignment]
    parameters = inspect.signature(get_class(options.pop("_target_"))).parameters
    inherited = {entry for one in options.pop("defaults", []) for entry in one}
    assert set(options) | inherited == set(parameters)
    assert options == {key: parameters[key].default for key in options}
