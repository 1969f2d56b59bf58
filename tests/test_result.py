"""A result as a type, and its flat spelling on the disk."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest

from diffsweep.sweep.store.result import (
    GivenImages,
    Measure,
    Measurement,
    Result,
    SamplingSummary,
    TrainingSummary,
    finite_record,
    larger_is_better,
)

JACKKNIFE = (0.761936176, 0.762155108, 0.724916728)
FULL = Measure("fd_digits", 0.5, 0.4, 0.6, 0.1, "Frechet output=features", JACKKNIFE)
FLAT = {
    "fd_digits": 0.5,
    "fd_digits_low": 0.4,
    "fd_digits_high": 0.6,
    "fd_digits_floor": 0.1,
    "fd_digits_by": "Frechet output=features",
    "fd_digits_jackknife": "0.761936176 0.762155108 0.724916728",
}
LOST = Measure("fd_digits", None, by="Frechet", reason="3 of 64 samples are not finite")


def measurement(*measures: Measure, **changed: Any) -> Measurement:
    known: dict[str, Any] = {
        "metric": "fd_digits",
        "measures": measures,
        "note": None,
        "samples": 64,
        "broken_samples": 0,
        "saturated": 0.125,
        "reference_saturated": 0.5,
        "reference_split": "train",
        "reference_samples": 1000,
        "reference_digest": "e1ee84151c99",
        "floor_samples": 64,
        "extractor": "digits",
        "extractor_digest": "242ce788f568",
        "resize": "none",
        "bits": 8,
    }
    return Measurement(**known | changed)


def result(of: Measurement, **more: Any) -> Result:
    options = {"sampler": "ddim", "dataset": "digits", "guidance": "none", "optimizer": "adam"}
    return Result.of(
        "c", "f", ["sampler=ddim"], options, of, evaluate_seconds=2.0, extract_seconds=1.0, grid="samples.png", **more
    )


@pytest.mark.parametrize(
    ("measure", "flat"),
    [
        (FULL, FLAT),
        (Measure("fd_digits", 0.5), {"fd_digits": 0.5}),
        (
            LOST,
            {"fd_digits": None, "fd_digits_reason": "3 of 64 samples are not finite", "fd_digits_by": "Frechet"},
        ),
        (Measure("nll", 1.5, examples=500), {"nll": 1.5, "nll_examples": 500}),
    ],
)
def test_a_measure_is_what_its_flat_keys_say(measure: Measure, flat: dict[str, Any]) -> None:
    assert measure.flat() == flat
    assert Measure.parse(measure.name, flat) == measure


def test_values_that_are_no_finite_numbers_are_absent_from_a_measure() -> None:
    record = {"fd": "x", "fd_low": True, "fd_high": math.inf, "fd_floor": math.nan, "fd_by": 3, "fd_jackknife": "1 x"}
    assert Measure.parse("fd", record) == Measure("fd", None)
    assert Measure.parse("fd", {}) == Measure("fd", None)


def test_a_measure_knows_its_direction_and_interval() -> None:
    assert FULL.half == pytest.approx(0.1)
    assert LOST.half is None
    assert not FULL.larger_is_better
    assert Measure("precision_digits", 0.5).larger_is_better
    assert not larger_is_better("scores")


def test_a_result_has_the_keys_of_result_json_in_their_order() -> None:
    training = TrainingSummary(seed=1, parameters=10, call_flops=20, steps=40, kept_step=30, seconds=0.5)
    sampling = SamplingSummary(nfe=19.5, nfe_requested=20, steps=20, seed=7, seconds=0.25)
    nll = Measure("nll", 1.5, 1.0, 2.0, by="Likelihood", examples=8)
    made = result(measurement(FULL, of_model=[nll]), training=training, sampling=sampling, sweep="grid")
    keys = [key for key in made.flat() if not key.startswith(("version_", "git_")) and key not in ("host", "platform")]
    assert keys == [
        *("cell", "fit", "overrides", "diffuser", "sampler", "schedule", "backbone", "dataset", "guidance", "metric"),
        *FLAT,
        *("evaluation_note", "samples", "broken_samples", "saturated", "reference_saturated"),
        *("reference_split", "reference_samples", "reference_digest"),
        *("floor_samples", "extractor", "extractor_digest", "resize", "bits"),
        *("nll", "nll_low", "nll_high", "nll_by", "nll_examples"),
        *("nfe", "nfe_asked", "steps", "sample_seed", "seed", "parameters", "call_flops", "fit_steps", "fit_kept_step"),
        *("fit_seconds", "sample_seconds", "evaluate_seconds", "extract_seconds", "grid", "sweep", "created"),
    ]
    assert (made.nfe, made.nfe_requested, made.sample_seed, made.seed) == (19.5, 20, 7, 1)
    assert (made.fit_steps, made.fit_kept_step, made.fit_seconds, made.sample_seconds) == (40, 30, 0.5, 0.25)
    assert made.options == {"sampler": "ddim", "dataset": "digits", "guidance": "none"}
    assert made.main == FULL
    assert made.measured == ["fd_digits", "nll"]


def test_a_result_of_given_images_has_no_model() -> None:
    given = GivenImages("theirs", "/their/images", "0123", available=80, resize="none", skipped=2)
    made = result(measurement(LOST), images=given)
    flat = made.flat()
    assert made.images == "theirs"
    assert made.images_available == 80
    assert {flat[key] for key in ("nfe", "nfe_asked", "seed", "sample_seed", "fit_steps", "fit_seconds", "sweep")} == {
        None
    }
    assert {"images", "images_source", "images_digest", "images_available", "images_resize", "skipped_files"} <= {*flat}
    assert made.lost
    assert made.main.reason == LOST.reason


def test_keys_of_other_versions_survive() -> None:
    record = {"cell": "c", "later": 3, "fd_later": "x", "metric": "fd", "fd": 1.0}
    assert Result.parse(record).flat() == record
    assert Result.parse(record).replace(overrides="a=1").flat() == record | {"overrides": "a=1"}


def test_attributes_of_a_damaged_result_are_absent_and_not_wrong() -> None:
    damaged = Result.parse(
        {"cell": 3, "nfe": "many", "samples": True, "sweep": 5, "grid": None, "fit_seconds": math.nan}
    )
    assert (damaged.cell, damaged.fit, damaged.metric) == ("3", "", "")
    assert (damaged.nfe, damaged.samples, damaged.fit_seconds) == (None, None, None)
    assert (damaged.sweep, damaged.grid, damaged.images) == ("5", None, None)


def test_another_measure_of_a_result_replaces_its_keys() -> None:
    made = Result.parse({"metric": "fd_digits", **FLAT})
    assert made.with_measure(LOST).main == LOST
    assert made.measure("other") == Measure("other", None)
    assert made.has("fd_digits")
    assert not made.has("other")
    assert {field.name for field in fields(Measure)} >= {"value", "low", "high", "floor", "by", "jackknife", "reason"}


def test_a_number_that_is_not_finite_becomes_null_with_its_reason() -> None:
    assert finite_record({"a": math.nan, "b": 1}) == {"a": None, "b": 1, "a_reason": "nan"}
    with pytest.raises(ValueError, match="a is a list: a record is flat"):
        finite_record({"a": [1]})
