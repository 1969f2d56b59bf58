"""The result of an evaluated cell, or of images that somebody else made: what result.json says, as types.

result.json is one flat JSON object. A measured number NAME takes the key NAME and, as far as they are known:

    NAME_low, NAME_high   ends of its 95 % interval
    NAME_floor            the same number of real samples, which a perfect model would have
    NAME_reconstruction   the same number of those samples after an autoencoder, which perfect latents would have
    NAME_by               what measured it, with its settings: numbers of other settings cannot be compared
    NAME_jackknife        the number without each block of samples, as text, with nine digits
    NAME_examples         how many held-out examples it is the mean of, where it is measured of the model itself
    NAME_reason           why NAME is null

That spelling stands in this file only. Keys of other versions are kept and written back as they are.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from diffsweep.sweep.store.override_words import joined

# The five choices that make a run, in the order in which they are always listed.
CHOICES = ("diffuser", "sampler", "schedule", "backbone", "dataset")

# Config groups whose chosen option a result records.
GROUPS = (*CHOICES, "guidance")

# What a flat record holds.
Value: TypeAlias = str | int | float | bool | None

# First words of the names of numbers that are better when larger; all others are distances and errors. result.json
# records no direction, so this table decides for all results.
_LARGER = (
    "precision",
    "recall",
    "density",
    "coverage",
    "accuracy",
    "agreement",
    "retrieval",
    "clip_score",
    "score",
    "inception_score",
)

_JACKKNIFE, _REASON, _RECONSTRUCTION = "_jackknife", "_reason", "_reconstruction"


def is_jackknife(key: str) -> bool:
    """Whether a key of result.json holds the values by block of a number."""
    return key.endswith(_JACKKNIFE)


def larger_is_better(name: str) -> bool:
    """Whether more is better of the number `name`, as of precision_digits; of distances and errors less is."""
    return any(name == first or name.startswith(f"{first}_") for first in _LARGER)


def finite_record(record: Mapping[str, Any]) -> dict[str, Value]:
    """A flat record as JSON can hold it: a NaN or infinite number becomes null, and `<key>_reason` says which it was.

    Raises ValueError for nested values.
    """
    result: dict[str, Value] = {}
    reasons: dict[str, Value] = {}
    for key, value in record.items():
        if not isinstance(key, str):
            raise ValueError(f"a record has the key {key!r}: keys must be text")
        if isinstance(value, float) and not math.isfinite(value):
            result[key], reasons[key + _REASON] = None, str(float(value))
        elif value is None or isinstance(value, (bool, int, float, str)):
            result[key] = value
        else:
            kind = type(value).__name__
            raise ValueError(f"{key} is a {kind}: a record is flat: text, numbers, true/false or null")
    return result | reasons


@dataclass(frozen=True)
class Measure:
    """A measured number with all that is known about it.

    Attributes:
        name: as fd_digits.
        value: finite; None if there is none.
        low: lower end of its 95 % interval; None if it has no interval.
        high: upper end.
        floor: the same number of real samples, which a perfect model would have; None if unknown.
        by: what measured it, with its settings; None in results that do not say.
        jackknife: the number without each block of samples; empty if unknown.
        reason: why there is no value; None if there is one.
        examples: how many held-out examples it is the mean of, if it was measured of the model itself.
        reconstruction: the number that the samples of `floor` have after the autoencoder of a latent model; None if the
            model is none.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    by: str | None = None
    jackknife: tuple[float, ...] = ()
    reason: str | None = None
    examples: int | None = None
    reconstruction: float | None = None

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % interval; None if there is none."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def larger_is_better(self) -> bool:
        """Whether more is better."""
        return larger_is_better(self.name)

    @property
    def interval_keys(self) -> tuple[str, str]:
        """The keys of its interval's ends in result.json, which are names of columns elsewhere too."""
        return f"{self.name}_low", f"{self.name}_high"

    def flat(self) -> dict[str, Value]:
        """Its keys in result.json; those of what is unknown are left out."""
        name = self.name
        known: dict[str, Value] = {
            name + _REASON: self.reason,
            f"{name}_low": self.low,
            f"{name}_high": self.high,
            f"{name}_floor": self.floor,
            name + _RECONSTRUCTION: self.reconstruction,
            f"{name}_by": self.by or None,
            name + _JACKKNIFE: " ".join(f"{value:.9g}" for value in self.jackknife) or None,
            f"{name}_examples": self.examples,
        }
        return {name: self.value} | {key: value for key, value in known.items() if value is not None}

    @classmethod
    def parse(cls, name: str, record: Mapping[str, Any]) -> Measure:
        """The number `name` of a flat record. What is absent or of a wrong type is None."""
        by, reason, examples = (record.get(name + mark) for mark in ("_by", _REASON, "_examples"))
        return cls(
            name,
            _number(record.get(name)),
            _number(record.get(f"{name}_low")),
            _number(record.get(f"{name}_high")),
            _number(record.get(f"{name}_floor")),
            by if isinstance(by, str) else None,
            _numbers(record.get(name + _JACKKNIFE)),
            None if reason is None else str(reason),
            examples if isinstance(examples, int) else None,
            _number(record.get(name + _RECONSTRUCTION)),
        )


@dataclass(frozen=True)
class Measurement:
    """What was measured of a set of samples, and how.

    Attributes:
        metric: name of the number that ranks cells.
        measures: all numbers of the samples, the main one first.
        note: a warning about them; None if there is none.
        samples: how many were measured.
        broken_samples: how many of them are not finite.
        saturated: share of the values of the others that are at an end of their range, as 0 and 255 are of images;
            None for real numbers.
        reference_saturated: the same share of the real data.
        reference_split: of the real data that they are compared with; None for real data without splits.
        reference_samples: how many real samples those are.
        reference_digest: of their content.
        floor_samples: how many real samples the floors are of; None without floors.
        extractor: name of the feature space.
        extractor_digest: of the extractor's weights.
        resize: how the extractor changes the size of images.
        bits: of a channel of an image; None for points.
        of_model: numbers that lie in no feature space: those of the model itself, and how far samples show what
            they were asked for.
    """

    metric: str
    measures: Sequence[Measure]
    note: str | None
    samples: int
    broken_samples: int
    saturated: float | None
    reference_saturated: float | None
    reference_split: str | None
    reference_samples: int
    reference_digest: str
    floor_samples: int | None
    extractor: str
    extractor_digest: str
    resize: str
    bits: int | None
    of_model: Sequence[Measure] = ()

    def flat(self) -> dict[str, Value]:
        """Its keys in result.json."""
        return {
            "metric": self.metric,
            **_merged(self.measures),
            "evaluation_note": self.note,
            "samples": self.samples,
            "broken_samples": self.broken_samples,
            "saturated": self.saturated,
            "reference_saturated": self.reference_saturated,
            "reference_split": self.reference_split,
            "reference_samples": self.reference_samples,
            "reference_digest": self.reference_digest,
            "floor_samples": self.floor_samples,
            "extractor": self.extractor,
            "extractor_digest": self.extractor_digest,
            "resize": self.resize,
            "bits": self.bits,
            **_merged(self.of_model),
        }


@dataclass(frozen=True)
class SamplingSummary:
    """How the samples of a cell were drawn.

    Attributes:
        nfe: network calls a sample, a mean where samples differ.
        nfe_requested: network calls a sample that the config allows.
        steps: of the sampler.
        seed: of the starting noise.
        seconds: that it took.
        guidance_strength: how far guidance moves samples, in units of the data; None without guidance.
    """

    nfe: float
    nfe_requested: int
    steps: int
    seed: int
    seconds: float
    guidance_strength: float | None = None


@dataclass(frozen=True)
class TrainingSummary:
    """The training that a cell's weights are of.

    Attributes:
        seed: of the training; None if it was elsewhere.
        parameters: of the network.
        call_flops: floating-point operations of a call of the network for one example; None if it is not known.
        steps: that it had; None if it was elsewhere.
        kept_step: whose weights are used; None likewise.
        seconds: that it took; 0 if it was elsewhere.
        imported_from: where the model was found, if it was trained elsewhere.
        autoencoder: signature of the autoencoder in whose latents it works; None if it works on the data.
        autoencoder_seconds: that its training and its latents took.
    """

    seed: int | None
    parameters: int
    call_flops: int | None
    steps: int | None
    kept_step: int | None
    seconds: float
    imported_from: str | None = None
    autoencoder: str | None = None
    autoencoder_seconds: float | None = None


@dataclass(frozen=True)
class GivenImages:
    """Images that another program made, as `diffsweep evaluate` finds them.

    Attributes:
        name: as tables call them.
        source: where they were found.
        digest: of their content.
        available: how many there are, of which not all need be measured.
        resize: how they were brought to one size.
        skipped: how many files could not be read.
    """

    name: str
    source: str
    digest: str
    available: int
    resize: str
    skipped: int


class _Text:
    """An attribute of a result that is the text of a key; None if it is absent."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get__(self, result: Result, owner: type[Result] | None = None) -> str | None:
        value = result.values.get(self.key)
        return value if value is None or isinstance(value, str) else str(value)


class _Name:
    """As `_Text`, but "" if it is absent."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get__(self, result: Result, owner: type[Result] | None = None) -> str:
        value = result.values.get(self.key)
        return "" if value is None else str(value)


class _Number:
    """An attribute of a result that is the finite number of a key; None if it is absent or no such number."""

    def __init__(self, key: str) -> None:
        self.key = key

    def __get__(self, result: Result, owner: type[Result] | None = None) -> float | None:
        return _number(result.values.get(self.key))


@dataclass(frozen=True)
class Result:
    """A finished cell, or a set of given images that was measured as a cell is.

    `values` is the flat record that was read or is to be written; the attributes below read it when they are asked
    for, since of ten thousand results few are looked at. A value of a wrong type counts as absent.

    Attributes:
        values: key -> value, as in result.json.
        overrides: of the command that made it, as they could be typed in a shell.
        metric: name of the number that ranks it; "" if it does not say.
        sweep: name of the sweep that made it; None if none did.
        created: when, in UTC, as 2026-11-21T10:00:00Z.
        grid: file name of the picture of samples.
        note: a warning about the numbers.
        images: what tables call given images; None for samples of a trained model.
        images_available: how many images were given.
        samples: how many were measured.
        saturated: share of their values at an end of their range.
        reference_saturated: the same share of the real data.
        reference_split: of the real data.
        reference_samples: how many real samples.
        reference_digest: of the real data.
        floor_samples: how many real samples the floors are of.
        extractor: name of the feature space.
        extractor_digest: of its weights.
        resize: how the extractor changes the size of images.
        bits: of a channel of an image.
        nfe: network calls a sample.
        nfe_requested: as the config allows.
        steps: of the sampler.
        sample_seed: of the starting noise.
        guidance_strength: how far guidance moves samples, in units of the data; None without guidance.
        seed: of the training.
        parameters: of the network.
        call_flops: floating-point operations of a call of the network for one example.
        fit_steps: training steps.
        fit_kept_step: training step whose weights are used.
        fit_seconds: of the training.
        imported_from: where its model was found; None if it was trained here.
        autoencoder: signature of the autoencoder in whose latents its model works; None if it works on the data.
        autoencoder_seconds: that the autoencoder took, which all fits with it share.
        sample_seconds: of sampling.
        evaluate_seconds: of the evaluation.
        git_commit: of this package.
    """

    values: Mapping[str, Any]

    overrides = _Name("overrides")
    metric = _Name("metric")
    sweep = _Text("sweep")
    created = _Name("created")
    grid = _Text("grid")
    note = _Text("evaluation_note")
    images = _Text("images")
    images_available = _Number("images_available")
    samples = _Number("samples")
    saturated = _Number("saturated")
    reference_saturated = _Number("reference_saturated")
    reference_split = _Text("reference_split")
    reference_samples = _Number("reference_samples")
    reference_digest = _Text("reference_digest")
    floor_samples = _Number("floor_samples")
    extractor = _Text("extractor")
    extractor_digest = _Text("extractor_digest")
    resize = _Text("resize")
    bits = _Number("bits")
    nfe = _Number("nfe")
    nfe_requested = _Number("nfe_asked")
    steps = _Number("steps")
    sample_seed = _Number("sample_seed")
    guidance_strength = _Number("guidance_strength")
    seed = _Number("seed")
    parameters = _Number("parameters")
    call_flops = _Number("call_flops")
    fit_steps = _Number("fit_steps")
    fit_kept_step = _Number("fit_kept_step")
    fit_seconds = _Number("fit_seconds")
    imported_from = _Text("imported_from")
    autoencoder = _Text("autoencoder")
    autoencoder_seconds = _Number("autoencoder_seconds")
    sample_seconds = _Number("sample_seconds")
    evaluate_seconds = _Number("evaluate_seconds")
    git_commit = _Text("git_commit")

    @property
    def cell(self) -> str:
        """Its signature."""
        return str(self.values.get("cell") or "")

    @property
    def fit(self) -> str:
        """The signature of its training."""
        return str(self.values.get("fit") or "")

    @classmethod
    def parse(cls, record: Mapping[str, Any]) -> Result:
        """The result that a flat record, as that of result.json, tells of."""
        return cls(record)

    @classmethod
    def of(
        cls,
        cell: str,
        fit: str,
        overrides: Iterable[str],
        options: Mapping[str, str | None],
        measurement: Measurement,
        *,
        evaluate_seconds: float,
        extract_seconds: float,
        grid: str,
        sampling: SamplingSummary | None = None,
        training: TrainingSummary | None = None,
        images: GivenImages | None = None,
        sweep: str | None = None,
    ) -> Result:
        """The result of a measurement that has just been made, here and now.

        Args:
            cell: signature.
            fit: signature of the training.
            overrides: of the command.
            options: chosen option by config group; groups outside of `GROUPS` are not recorded.
            measurement: what was measured.
            evaluate_seconds: of the evaluation, `extract_seconds` included.
            extract_seconds: of the computation of features.
            grid: file name of the picture of samples.
            sampling: how samples were drawn; None for given images.
            training: of the model; None for given images.
            images: what was given; None for samples of a trained model.
            sweep: name of the sweep that asked for it.
        """
        # Imported here: reading ten thousand results asks neither git nor the system.
        from diffsweep.sweep.store.provenance import provenance

        given: dict[str, Value] = {}
        if images is not None:
            given = {
                "images_source": images.source,
                "images_digest": images.digest,
                "images_available": images.available,
                "images_resize": images.resize,
                "skipped_files": images.skipped,
            }
        return cls(
            {
                "cell": cell,
                "fit": fit,
                "overrides": joined(overrides),
                **{group: options.get(group) for group in GROUPS},
                **({"images": images.name} if images is not None else {}),
                **measurement.flat(),
                **given,
                "nfe": sampling and sampling.nfe,
                "nfe_asked": sampling and sampling.nfe_requested,
                "steps": sampling and sampling.steps,
                "sample_seed": sampling and sampling.seed,
                **_strength(sampling),
                "seed": training and training.seed,
                "parameters": training and training.parameters,
                "call_flops": training and training.call_flops,
                "fit_steps": training and training.steps,
                "fit_kept_step": training and training.kept_step,
                "fit_seconds": training and training.seconds,
                **({"imported_from": training.imported_from} if training and training.imported_from else {}),
                **(
                    {"autoencoder": training.autoencoder, "autoencoder_seconds": training.autoencoder_seconds}
                    if training and training.autoencoder
                    else {}
                ),
                "sample_seconds": sampling and sampling.seconds,
                "evaluate_seconds": evaluate_seconds,
                "extract_seconds": extract_seconds,
                "grid": grid,
                "sweep": sweep,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                **provenance(),
            }
        )

    def flat(self) -> dict[str, Any]:
        """All keys and values, as result.json has them; those of other versions included."""
        return dict(self.values)

    def without_jackknife(self) -> Result:
        """The same result without the values by block: they are most of a record, and only intervals need them."""
        return Result({key: value for key, value in self.values.items() if not is_jackknife(key)})

    def replace(self, **changed: Value) -> Result:
        """The same result with other values for some keys."""
        return Result({**self.values, **changed})

    def with_measure(self, measure: Measure) -> Result:
        """The same result with one number more, or with all that is known of a number replaced."""
        stale = {measure.name + mark for mark in _ALL_MARKS}
        return Result({key: value for key, value in self.values.items() if key not in stale} | measure.flat())

    def option(self, group: str) -> str | None:
        """The option that was chosen of a config group of `GROUPS`; None if that is not recorded."""
        value = self.values.get(group)
        return None if value is None else str(value)

    @property
    def options(self) -> dict[str, str]:
        """Config group of `GROUPS` -> the option that was chosen of it, as far as it is recorded."""
        return {group: str(value) for group in GROUPS if (value := self.values.get(group)) is not None}

    def value(self, name: str) -> float | None:
        """The value of a number: as `measure(name).value`, but faster."""
        return _number(self.values.get(name))

    def measure(self, name: str) -> Measure:
        """The number `name`, without value if there is none."""
        return Measure.parse(name, self.values)

    def measured_by(self, name: str) -> str | None:
        """What measured a number, with its settings: as `measure(name).by`, but faster."""
        by = self.values.get(f"{name}_by")
        return by if isinstance(by, str) else None

    @property
    def main(self) -> Measure:
        """The number that ranks it."""
        return self.measure(self.metric)

    @property
    def measured(self) -> list[str]:
        """Names of all numbers that were measured, the main one first."""
        metric = self.metric
        names = (key[: key.rindex("_")] for key in self.values if key.endswith(_MARKS))
        return list(dict.fromkeys([*([metric] if metric else []), *(name for name in names if name in self.values)]))

    def has(self, name: str) -> bool:
        """Whether the number `name` was measured, be it without a value."""
        return name in self.values and (name == self.metric or any(name + mark in self.values for mark in _MARKS))

    @property
    def lost(self) -> bool:
        """Whether its main number has no value, as that of samples that are not finite."""
        return self.value(self.metric) is None

    @property
    def versions(self) -> dict[str, str]:
        """Package -> its version."""
        first = "version_"
        return {
            key.removeprefix(first).replace("_", "-"): str(value)
            for key, value in self.values.items()
            if value and key.startswith(first)
        }

    @property
    def git_dirty(self) -> bool:
        """Whether the code of this package differed from its commit."""
        return bool(self.values.get("git_dirty"))


# What marks a key as that of a number that was measured.
_MARKS = ("_low", "_floor", "_by")
_ALL_MARKS = (*_MARKS, "_high", _JACKKNIFE, _REASON, _RECONSTRUCTION, "_examples")


def _strength(sampling: SamplingSummary | None) -> dict[str, Value]:
    strength = None if sampling is None else sampling.guidance_strength
    return {} if strength is None else {"guidance_strength": strength}


def _merged(measures: Iterable[Measure]) -> dict[str, Value]:
    return {key: value for measure in measures for key, value in measure.flat().items()}


def _number(value: object) -> float | None:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return value


def _numbers(text: object) -> tuple[float, ...]:
    try:
        values = tuple(float(word) for word in str(text or "").split())
    except ValueError:
        return ()
    return values if len(values) > 1 and all(map(math.isfinite, values)) else ()
