"""`diffsweep evaluate`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from diffsweep.commands.values import whole
from diffsweep.report.terminal import show_result
from diffsweep.sweep.plan.compose import in_one_line
from diffsweep.sweep.store import query
from diffsweep.sweep.store.process import import_from


def arguments(parser: argparse.ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("images", metavar="DIR_OR_NPZ", help="folder of pictures, or .npz or .npy file of uint8")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="as after `python train.py`, of what is measured"
    )
    parser.add_argument("--reference", required=True, metavar="DATASET_OR_DIR", help="dataset, or real images likewise")
    parser.add_argument("--name", help="what the tables call them (default: the name of the folder or file)")
    parser.add_argument("--samples", metavar="N", type=whole, help="N of the images only, chosen once and for all")
    parser.add_argument("--size", metavar="N", type=whole, help="bring all to N x N: shorter side, then the centre")
    parser.add_argument("--corrupt", choices=("refuse", "skip"), default="refuse", help="pictures that cannot be read")
    parser.add_argument("--force", action="store_true", help="measure again what is measured already")


def run(asked: argparse.Namespace) -> int:
    """Score images that any program made, as a run's samples are scored; they enter the same tables.

    The images are a folder of pictures (PNG, JPEG, WebP, BMP; with its subfolders), or an .npz or .npy file of uint8.
    Labels in an .npz, as `labels` or arr_1, give the numbers by class as well. The reference is a dataset of conf/, or
    real images in the same forms; then choose the features by extractor=NAME.
    OVERRIDE says what is measured, as extractor=inception 'metric=[frechet,kernel]' evaluation.reference=test. Numbers
    compare only at equal numbers of samples: --samples.
    """
    cfg, is_dataset = _composed(asked)
    from diffsweep.runs.external import External, Pictures, read

    images, reference = read(asked.images, asked.size, asked.corrupt), asked.reference
    if not is_dataset:
        reference = Pictures(_name(reference), read(reference, asked.size, asked.corrupt))
    external = External.of(
        cfg,
        images,
        _name(asked.images) if asked.name is None else asked.name,
        reference,
        asked.samples,
        asked.overrides,
        str(Path(asked.images).absolute()),
    )
    done = None if asked.force else external.cell.result()
    if done is not None:
        again = "" if done["images"] == external.name else f" as {done['images']}; --force records it anew"
        print(f"already done{again}", file=sys.stderr)
    alike = [
        result.get("samples")
        for result in query.results(asked.runs)
        if (result.get("dataset"), result.get("metric")) == (external.choice, external.evaluation.main)
    ]
    samples, usual = len(external.order), max(set(alike), key=alike.count, default=None)
    if usual is not None and samples not in alike:
        how = f"use --samples {usual}" if usual <= len(images) else f"make {usual - len(images)} more images"
        print(
            f"careful: {samples} samples are not compared with the {usual} of other {external.choice} results; {how}",
            file=sys.stderr,
        )
    show_result(done or external.evaluate(force=asked.force), runs=asked.runs)
    return 0


def _composed(asked: argparse.Namespace) -> tuple[Any, bool]:
    """The config of an evaluation, and whether its reference is a dataset of conf/, rather than a folder or file."""
    if not Path("conf/config.yaml").is_file():
        raise ValueError("there is no conf/config.yaml here: run this in the project's folder")
    folders = [Path(word.partition("=")[2]) for word in asked.overrides if word.startswith("--config-dir=")]
    words = [word for word in asked.overrides if not word.startswith("--config-dir=")]
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    for word in words:
        if word.startswith("-"):
            raise ValueError(f"{word} is no option of evaluate")
        if Path(word).is_file() or not ("=" in word or word.startswith("~")):
            # A shell makes many words of *.png.
            raise ValueError(
                f"{word} comes after {asked.images}: give one folder or file, in quotes if its name has spaces"
            )
    if keys & {"dataset", "evaluation.samples"}:
        raise ValueError(
            "evaluate takes --reference DATASET instead of dataset=, --samples N instead of evaluation.samples="
        )
    import_from(Path.cwd())
    try:
        with initialize_config_dir(str(Path("conf").absolute()), version_base="1.3"):
            places = ",".join(f"'file://{folder.absolute()}'" for folder in folders)
            search = f"hydra.searchpath=[{places}]"
            loader = GlobalHydra.instance().config_loader()

            def options(group: str) -> list[str]:
                return loader.get_group_options(group, config_name="config", overrides=[search])

            is_dataset = asked.reference in options("dataset")
            if is_dataset:
                words.insert(0, f"dataset={asked.reference}")
            elif not Path(asked.reference).exists():
                raise ValueError(
                    f"--reference {asked.reference} is no dataset, folder or file; datasets are "
                    f"{', '.join(options('dataset'))}"
                )
            elif "extractor" not in keys:
                if "efficientnet" not in options("extractor"):
                    raise ValueError(
                        f"choose the features with extractor=NAME, one of {', '.join(options('extractor'))}: "
                        f"{asked.reference} has none of its own"
                    )
                words.insert(0, "extractor=efficientnet")
            cfg = compose("config", overrides=[search, *words])
            # Not among the words: a folder may be called what Hydra would not take for a value.
            cfg.paths.runs = asked.runs
            return cfg, is_dataset
    except HydraException as error:
        raise ValueError(in_one_line(error)) from error


def _name(path: str) -> str:
    found = Path(path).resolve()
    return found.name if found.is_dir() else found.stem
