"""`diffsweep evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from diffsweep.commands.values import whole
from diffsweep.messages import say
from diffsweep.report.terminal import show_result
from diffsweep.results.external_config import compose_external
from diffsweep.sweep.store import query


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument(
        "images", metavar="DIR_OR_NPZ", help="folder of pictures, videos or sounds, or .npz or .npy file of uint8"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="as after `diffsweep train`, of what is measured"
    )
    parser.add_argument("--reference", required=True, metavar="DATASET_OR_DIR", help="dataset, or real images likewise")
    parser.add_argument("--name", help="what the tables call them (default: the name of the folder or file)")
    parser.add_argument("--samples", metavar="N", type=whole, help="N of the images only, chosen once and for all")
    parser.add_argument("--size", metavar="N", type=whole, help="bring all to N x N: shorter side, then the centre")
    parser.add_argument("--corrupt", choices=("refuse", "skip"), default="refuse", help="pictures that cannot be read")
    parser.add_argument("--force", action="store_true", help="measure again what is measured already")


def run(options: argparse.Namespace) -> int:
    """Score images, videos or sounds that any program made, as a run's samples are scored; they enter the same tables.

    The images are a folder of pictures (PNG, JPEG, WebP, BMP; with its subfolders), or an .npz or .npy file of uint8.
    Where the reference is a dataset of videos or sounds, they are a folder or zip of these, read as dataset=video and
    dataset=audio read them: so many frames from the first on; at its sample rate and length, as loud as they are.
    Labels in an .npz, as `labels` or arr_1, give the numbers by class as well. The reference is a dataset of conf/, or
    real images in the same forms; then choose the features by extractor=NAME.
    OVERRIDE says what is measured, as extractor=inception 'metric=[frechet,kernel]' evaluation.reference=test. Numbers
    compare only at equal numbers of samples: --samples.
    """
    words = _overrides(options)
    cfg, is_dataset = compose_external(words, options.reference, options.runs)
    from diffsweep.runs.external import External, Pictures, read, real_data

    real, reference = real_data(cfg) if is_dataset else None, options.reference
    images = read(options.images, options.size, options.corrupt, real)
    if not is_dataset:
        reference = Pictures(_name(reference), read(reference, options.size, options.corrupt))
    external = External.of(
        cfg,
        images,
        _name(options.images) if options.name is None else options.name,
        reference,
        options.samples,
        options.overrides,
        str(Path(options.images).absolute()),
    )
    done = None if options.force else external.cell.result()
    if done is not None:
        again = "" if done.images == external.name else f" as {done.images}; --force records it anew"
        say(f"already done{again}")
    alike = [
        result.samples
        for result in query.results(options.runs)
        if (result.option("dataset"), result.metric) == (external.choice, external.evaluation.main)
    ]
    samples, usual = len(external.order), max(set(alike), key=alike.count, default=None)
    if usual is not None and samples not in alike:
        how = f"use --samples {usual}" if usual <= len(images) else f"make {usual - len(images)} more images"
        say(f"careful: {samples} samples are not compared with the {usual} of other {external.choice} results; {how}")
    show_result(done or external.evaluate(force=options.force), runs=options.runs)
    return 0


def _overrides(options: argparse.Namespace) -> list[str]:
    """The words that are overrides or --config-dir. Raises ValueError for another word."""
    for word in options.overrides:
        if word.startswith("--config-dir="):
            continue
        if word.startswith("-"):
            raise ValueError(f"{word} is no option of evaluate")
        if Path(word).is_file() or not ("=" in word or word.startswith("~")):
            # A shell makes many words of *.png.
            raise ValueError(
                f"{word} comes after {options.images}: give one folder or file, in quotes if its name has spaces"
            )
        if word.lstrip("+~").partition("=")[0] in ("dataset", "evaluation.samples"):
            raise ValueError(
                "evaluate takes --reference DATASET instead of dataset=, --samples N instead of evaluation.samples="
            )
    return options.overrides


def _name(path: str) -> str:
    found = Path(path).resolve()
    return found.name if found.is_dir() else found.stem
