"""`diffsweep COMMAND`: what is asked about runs, beside training them. Each command is one function.

A command imports what it needs inside of it, so that none waits for another's imports. It returns its exit code; a
ValueError or an OSError is said in one line, with exit code 2.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

# Of a report: cells that are animated, and samples of each.
_ANIMATED, _NOISES = 24, 16


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words` (default: those of the command line) name, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="diffsweep",
        description="What there is, what goes on, what to do with it. Training is `python train.py ...`.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        added = commands.add_parser(
            name, help=summary, description=(run.__doc__ or summary).replace("\n    ", "\n"), formatter_class=raw
        )
        added.set_defaults(run=run)
        added.add_argument("--runs", metavar="DIR", default="runs", help="folder of the runs (default: runs)")
        return added

    added = command("plan", plan, "what a sweep would train and evaluate, and what is done of it already; runs nothing")
    added.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as after `python train.py -m`")

    added = command("prefetch", prefetch, "fetch data and weights, compute statistics: for nodes without internet")
    added.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="as after `python train.py -m`")

    added = command("status", status, "what goes on in a sweep, or a line about each")
    added.add_argument("sweep", nargs="?", metavar="SWEEP", help="its name, the beginning of it, or last")
    added.add_argument("--watch", action="store_true", help="go on until the sweep is over")

    added = command("resume", resume, "do what a sweep lacks: what is missing or failed, and only that")
    added.add_argument("sweep", metavar="SWEEP", help="its name, the beginning of it, or last")

    added = command("cancel", cancel, "stop a sweep's processes or SLURM jobs; what is finished stays")
    added.add_argument("sweep", metavar="SWEEP", help="its name, the beginning of it, or last")

    added = command("results", results, "finished cells as a table, CSV, JSON or Parquet")
    added.add_argument("filters", nargs="*", metavar="FILTER", help="name of a sweep, or a condition on a column")
    added.add_argument("--format", choices=("table", "csv", "json", "parquet"), default="table")
    added.add_argument(
        "--metric", metavar="NAME", help="rank a table by this number, as kd_digits, not by the main one"
    )
    added.add_argument("--sort", metavar="COLUMN", help="order by this column; a table's default is its metric")
    added.add_argument("--reverse", action="store_true", help="with --sort: largest first")
    added.add_argument("--limit", metavar="N", type=_whole, help="first N only (a table's default: 50); 0 for all")
    added.add_argument("--out", metavar="FILE", help="write to FILE instead (not for tables)")

    added = command("report", report, "one HTML page about a sweep, or about the results that you choose")
    added.add_argument("filters", nargs="+", metavar="SWEEP", help="its name, or conditions as for `results`")
    added.add_argument("--metric", metavar="NAME", help="rank by this number instead of the main one")
    added.add_argument("--out", metavar="FILE", help="where to (default: report.html of the sweep, or here)")
    added.add_argument(
        "--animate", metavar="N", type=_whole, default=0, help="show how the first N samples of the best cells arise"
    )

    added = command("evaluate", evaluate, "score anybody's images as a run's samples are scored")
    added.add_argument("images", metavar="DIR_OR_NPZ", help="folder of pictures, or .npz or .npy file of uint8")
    added.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE", help="as after `python train.py`, of what is measured"
    )
    added.add_argument("--reference", required=True, metavar="DATASET_OR_DIR", help="dataset, or real images likewise")
    added.add_argument("--name", help="what the tables call them (default: the name of the folder or file)")
    added.add_argument("--samples", metavar="N", type=_whole, help="N of the images only, chosen once and for all")
    added.add_argument("--size", metavar="N", type=_whole, help="bring all to N x N: shorter side, then the centre")
    added.add_argument("--corrupt", choices=("refuse", "skip"), default="refuse", help="pictures that cannot be read")
    added.add_argument("--force", action="store_true", help="measure again what is measured already")

    added = command("sample", sample, "new images of a finished run: another sampler, guidance, nfe or seed")
    added.add_argument("cell", metavar="CELL", help="a cell or fit (the beginning of its name), best or last")
    added.add_argument("-n", metavar="N", type=_whole, default=64, dest="count", help="how many (default: 64)")
    added.add_argument("--seed", metavar="N", type=int, help="sample seed (default: the cell's own)")
    added.add_argument("--nfe", metavar="N", type=int, help="network calls a sample (default: the cell's own)")
    added.add_argument("--sampler", metavar="NAME", help="an option of conf/sampler (default: the cell's own)")
    added.add_argument("--guidance", metavar="NAME", help="an option of conf/guidance (default: the cell's own)")
    added.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="changes", help="such as guidance.scale=2"
    )
    added.add_argument("--out", metavar="DIR", help="where to put them (default: a folder below samples/)")
    added.add_argument("--gif", action="store_true", help="also how the first of them come about, step by step")
    added.add_argument("--device", metavar="NAME", default="auto", help="auto (a GPU if there is one), cpu, gpu, gpu:1")
    added.add_argument("--config-dir", metavar="DIR", help="folder of options of your own")

    added = command("wandb-sync", wandb_sync, "W&B runs of a sweep, fit, cell or of everything, from our own files")
    added.add_argument("name", nargs="?", metavar="SWEEP_OR_RUN", help="sweep, last, or signature (default: all runs)")
    how = added.add_mutually_exclusive_group()
    how.add_argument("--online", dest="mode", action="store_const", const="online", help="send (the default)")
    how.add_argument("--offline", dest="mode", action="store_const", const="offline", help="write W&B's files only")
    added.add_argument("--project", help="W&B project (default: that of the runs, or diffsweep)")
    added.add_argument("--entity", help="W&B team or user (default: that of the runs, or yours)")

    added = command("gc", gc, "what could be freed; frees it with --yes")
    added.add_argument("--yes", action="store_true", help="delete it")
    added.add_argument("--older-than", metavar="DAYS", type=_days, default=7.0, help="for abandoned trainings (7)")

    asked, rest = parser.parse_known_args(words)
    # argparse takes positional words from one place only; people write them between options as well.
    if "filters" in asked and not any(word.startswith("-") for word in rest):
        asked.filters += rest
    elif "overrides" in asked:
        # Options of train.py, such as --config-dir.
        asked.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        code = asked.run(asked)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read has seen enough; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (ValueError, OSError) as error:
        print(f"diffsweep: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def plan(asked: argparse.Namespace) -> int:
    """What `python train.py -m OVERRIDE ...` would train and evaluate, what is done of it, what the rest may cost."""
    return _train(asked, "plan")


def prefetch(asked: argparse.Namespace) -> int:
    """Fetch the data and weights that `python train.py -m OVERRIDE ...` needs, and compute the data's statistics.

    Run it where there is internet; the jobs then need none.
    """
    return _train(asked, "prefetch")


def _train(asked: argparse.Namespace, mode: str) -> int:
    import runpy
    from pathlib import Path

    if not Path("train.py").is_file():
        raise ValueError("there is no train.py here: run this in the project's folder")
    runs = [f"paths.runs={asked.runs}"] if asked.runs != "runs" else []
    # Hydra reads the command line itself.
    sys.argv = ["train.py", "-m", *asked.overrides, *runs, f"mode={mode}"]
    runpy.run_path("train.py", run_name="__main__")
    return 0


def status(asked: argparse.Namespace) -> int:
    """What goes on in a sweep; without one, a line about each."""
    from pathlib import Path

    from diffsweep.report import status as report

    return report.status(Path(asked.runs), asked.sweep, asked.watch)


def resume(asked: argparse.Namespace) -> int:
    """Do what a sweep lacks, as it was launched: what is missing or failed, and only that.

    The settings are those that were planned, whatever the files in conf/ say now; the code is that of now.
    """
    from pathlib import Path

    from diffsweep import launching
    from diffsweep.report.status import find

    return 0 if launching.resume(find(Path(asked.runs), asked.sweep)) else 1


def cancel(asked: argparse.Namespace) -> int:
    """Stop a sweep. Trainings save their state first; what is finished stays, and `resume` goes on from there."""
    from pathlib import Path

    from diffsweep.report import status as report

    return report.cancel(Path(asked.runs), asked.sweep)


def results(asked: argparse.Namespace) -> int:
    """Finished cells, best first; numbers that were measured differently come in tables of their own.

    FILTER is the name of a sweep, or a condition on a column of result.json:
      sampler=ddim,heun   one of these; null stands for an absent value
      sampler!=ddim       none of these
      "fd_digits<0.5"     also <=, > and >=; in quotes, as the shell has a use for < and >
    Several conditions must all hold; of several sweeps a cell belongs to one.

    A table shows each number with half the width of its 95 % interval; * is the best, = what cannot be told from it.
    A CSV leaves out NAME_jackknife, 20 numbers in one text, which JSON and Parquet have.
    """
    from diffsweep.sweep import scan

    if asked.format == "table" and asked.out:
        raise ValueError(f"--out {asked.out} needs --format csv, json or parquet")
    if asked.format == "parquet" and not asked.out:
        raise ValueError("--format parquet needs --out FILE: it is not text")
    if asked.reverse and not asked.sort:
        raise ValueError("--reverse needs --sort COLUMN")
    if asked.metric and asked.format != "table":
        raise ValueError(f"--metric {asked.metric} is for tables: --sort {asked.metric} orders {asked.format}")
    unreadable: list[str] = []
    every = scan.results(asked.runs, unreadable, jackknife=asked.format in ("json", "parquet"))
    chosen: Sequence[Any] = scan.select(every, asked.filters, asked.runs)
    if unreadable:
        more = f" and {len(unreadable) - 1} more" if len(unreadable) > 1 else ""
        print(f"left out as unreadable: {unreadable[0]}{more}", file=sys.stderr)
    if not every:
        raise ValueError(
            f"no finished runs in {asked.runs}: `python train.py` makes one; --runs DIR looks in another folder"
        )
    if not chosen:
        raise ValueError(f"none of the {len(every):,} finished runs passes {' '.join(asked.filters)}")
    if asked.format == "table":
        from diffsweep.report.export import ordered
        from diffsweep.report.terminal import show_sweep

        limit = 50 if asked.limit is None else asked.limit
        if asked.sort:
            chosen = ordered(chosen, asked.sort, asked.reverse)
        show_sweep(chosen, runs=asked.runs, ranked=not asked.sort, limit=limit or None, metric=asked.metric)
        return 0
    from diffsweep.report import export

    if asked.sort:
        chosen = export.ordered(chosen, asked.sort, asked.reverse)
    chosen = chosen[: asked.limit or None]
    if asked.out:
        export.write(chosen, asked.format, asked.out)
    else:
        sys.stdout.write(export.text(chosen, asked.format))
    return 0


def report(asked: argparse.Namespace) -> int:
    """Write one HTML page that needs no network: who won, by how much, what it looks like, and what it cost.

    Every sweep writes its own at its end. SWEEP is its name, the beginning of it, or last; or conditions on columns, as
    for `diffsweep results`, for a page about results of several sweeps.

    With --animate 4 the page also shows, for the best 24 cells, what the samplers make of the first 4 starting noises,
    step by step; that draws them anew, without training, and makes the page larger: of 8 x 8 pixels each by 10 kB a
    cell, of 28 x 28 by 50 kB.
    """
    from dataclasses import replace
    from pathlib import Path

    from diffsweep.report import callback, page
    from diffsweep.report.status import find
    from diffsweep.sweep import scan
    from diffsweep.sweep.plan import Plan

    runs = Path(asked.runs)
    if len(asked.filters) == 1 and not any(sign in asked.filters[0] for sign in "=<>"):
        folder = find(runs, asked.filters[0])
        about, file = callback.subject(folder, runs, Plan.read(folder)), folder / "report.html"
    else:
        chosen = scan.select(scan.results(runs, jackknife=True), asked.filters, runs)
        about, file = page.Subject(" ".join(asked.filters), runs, chosen), Path("report.html")
    if not about.results and not about.failures:
        raise ValueError(f"nothing to report: no finished run passes {' '.join(asked.filters)}")
    if asked.animate:
        about = replace(about, motions=_motions(page.best_first(about, asked.metric), asked.animate, runs))
    file = Path(asked.out) if asked.out else file
    page.write(about, file, asked.metric)
    print(file)
    return 0


def _motions(ranked: Sequence[Mapping[str, Any]], count: int, runs: Path) -> dict[str, dict[str, Any]]:
    """Cell -> how its first `count` samples come about, of the first cells of `ranked` that have a model."""
    if count > _NOISES:
        raise ValueError(f"--animate {count} is too much for one page: at most {_NOISES}")
    from pathlib import Path

    # What is installed goes first: a file of the user's that happens to be called like a library breaks nothing.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    from tqdm import tqdm

    from diffsweep import results
    from diffsweep.report.motion import motion
    from diffsweep.sweep.record import Fit
    from diffsweep.training import redraw

    own = [result for result in ranked if result.get("images") is None][:_ANIMATED]
    found = {}
    for result in tqdm(own, "animating", unit="cell", disable=None, leave=False):
        cell = Fit(runs / "fits" / str(result["fit"])).cell(str(result["cell"]))
        try:
            what = results.asked(cell)
            # Of a few points nobody sees where they go.
            flat = len(what.cfg.dataset.get("shape") or ()) == 1
            drawn = redraw.redraw(
                what.cfg, what.fit, redraw.POINTS if flat else count, seed=what.seed, follow=True, show=False
            )
        except ValueError as error:
            print(f"not animated: {cell.signature}: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        found[cell.signature] = motion([(left.numpy(), right.numpy()) for left, right in drawn.frames])
    return found


def evaluate(asked: argparse.Namespace) -> int:
    """Score images that any program made, as a run's samples are scored; they enter the same tables.

    The images are a folder of pictures (PNG, JPEG, WebP, BMP; with its subfolders), or an .npz or .npy file of uint8.
    The reference is a dataset of conf/, or real images in the same forms; then choose the features by extractor=NAME.
    OVERRIDE says what is measured, as extractor=inception 'metric=[frechet,kernel]' evaluation.reference=test. Numbers
    compare only at equal numbers of samples: --samples.
    """
    from pathlib import Path

    from diffsweep.report.terminal import show_result
    from diffsweep.sweep import scan

    cfg, is_dataset = _composed(asked)
    from diffsweep.training.external import External, Pictures, read

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
        for result in scan.results(asked.runs)
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
    from pathlib import Path

    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    from diffsweep.sweep.compose import in_one_line

    if not Path("conf/config.yaml").is_file():
        raise ValueError("there is no conf/config.yaml here: run this in the project's folder")
    folders = [Path(word.partition("=")[2]) for word in asked.overrides if word.startswith("--config-dir=")]
    words = [word for word in asked.overrides if not word.startswith("--config-dir=")]
    keys = {word.lstrip("+~").partition("=")[0] for word in words}
    for word in words:
        if word.startswith("-"):
            raise ValueError(f"{word} is no option of evaluate")
    if keys & {"dataset", "evaluation.samples"}:
        raise ValueError(
            "evaluate takes --reference DATASET instead of dataset=, --samples N instead of evaluation.samples="
        )
    words.append(f"paths.runs={asked.runs}")
    # What is installed goes first: a file of the user's that happens to be called like a library breaks nothing.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
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
            return compose("config", overrides=[search, *words]), is_dataset
    except HydraException as error:
        raise ValueError(in_one_line(error)) from error


def _name(path: str) -> str:
    from pathlib import Path

    found = Path(path).resolve()
    return found.name if found.is_dir() else found.stem


def sample(asked: argparse.Namespace) -> int:
    """Draw images from any finished run, without training: as it was evaluated, but for what is asked otherwise.

    Image i with seed s is the image i that an evaluation with evaluation.seed=s draws. A sampler that is named gets as
    many network calls as the cell had, unless --nfe says otherwise. DIR gets 000000.png ..., grid.png (the first 100),
    samples.npz (uint8, what other tools and `diffsweep evaluate` read), settings.json; points are samples.npy.
    """
    from pathlib import Path

    from diffsweep import results

    # What is installed goes first: a file of the user's that happens to be called like a library breaks nothing.
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    what = results.asked(
        asked.cell,
        seed=asked.seed,
        nfe=asked.nfe,
        sampler=asked.sampler,
        guidance=asked.guidance,
        changes=asked.changes,
        runs=asked.runs,
        device=asked.device,
        config_dir=asked.config_dir,
    )
    from diffsweep.training import redraw

    out = Path(asked.out or f"samples/{what.name}")
    redraw.check_folder(out)
    drawn = redraw.redraw(what.cfg, what.fit, asked.count, seed=what.seed, follow=asked.gif)
    files = redraw.write(drawn, out, what.settings(drawn))
    import shlex

    from diffsweep.report.terminal import count, duration

    if drawn.broken:
        print(f"careful: {count(drawn.broken)} of {count(asked.count)} are not finite", file=sys.stderr)
    chosen = " ".join(f"{group}={choice}" for group, choice in what.choices.items())
    print(f"{count(asked.count)} of {what.record.signature} ({chosen or 'as it was trained'})")
    print(f"{drawn.nfe:g} network calls a sample, seed {what.seed}, {duration(drawn.seconds)} on {drawn.device}\n")
    for title, file in zip(("pictures", "numbers", "animation"), files, strict=False):
        print(f"{title:<10} {out / file.name}")
    print("\nnext:")
    runs = [] if asked.runs == "runs" else ["--runs", asked.runs]
    if drawn.samples.ndim == 4:
        told = ["evaluate", str(out / files[1].name), "--reference", what.choices.get("dataset", "DATASET"), *runs]
        print(f"  diffsweep {shlex.join(told)}")
        print("    # their score; tables compare equal numbers of samples (-n)")
    other = "ddim" if what.choices.get("sampler") == "heun" else "heun"
    told = ["sample", what.record.signature, "--sampler", other, "--seed", str(what.seed), *runs]
    print(f"  diffsweep {shlex.join(told)}")
    print("    # another sampler from the same noise")
    return 0


def wandb_sync(asked: argparse.Namespace) -> int:
    """Make the Weights & Biases runs of what has been done here, or complete them; what is complete is left alone.

    Everything comes from our own files (metrics.jsonl, config.yaml, result.json, samples.png), so runs that were killed
    offline lose nothing, and runs without logger=wandb can be shown as well. Of a whole sweep it also makes the
    summary and, with wandb-workspaces, a saved workspace and a report.
    """
    from pathlib import Path

    from diffsweep.report.wandb_sync import sync
    from diffsweep.sweep.mirror import reachable

    mode = asked.mode or "online"
    why = reachable() if mode == "online" else None
    if why is not None:
        raise ValueError(f"W&B: {why}; --offline writes files for `wandb sync`")
    return sync(Path(asked.runs), asked.name, mode, asked.project, asked.entity)


def gc(asked: argparse.Namespace) -> int:
    """What could be freed, with sizes; nothing is deleted without --yes.

    Checkpoints of finished trainings, leftovers of killed writers, leases that no longer count, and trainings that
    failed or stopped --older-than DAYS ago, have no result and belong to no sweep. Never a finished cell or its
    training, and never what anybody is at work on.
    """
    from concurrent.futures import ThreadPoolExecutor
    from pathlib import Path

    from diffsweep.sweep import collect

    if not Path(asked.runs).is_dir():
        raise ValueError(f"--runs {asked.runs} is no folder")
    older_than = asked.older_than * collect.DAY
    found = collect.garbage(asked.runs, older_than)
    if not found:
        print("nothing to free")
        return 0
    titles = {
        "fit": f"trainings without result, in no sweep, quiet for {asked.older_than:g} days",
        "checkpoint": "checkpoints of finished trainings",
        "temporary": "leftovers of killed writers",
        "lease": "old leases",
    }
    for kind, title in titles.items():
        ours = sorted((one for one in found if one.kind == kind), key=lambda one: -one.size)
        if ours:
            print(f"{_size(sum(one.size for one in ours)):>9}  {len(ours)} {title}")
        shown = ours[:20] if kind != "lease" else []
        for one in shown:
            print(f"{_size(one.size):>9}    {one.path}  ({one.why})")
        if shown and len(ours) > len(shown):
            print(f"{'':>9}    and {len(ours) - len(shown)} more")
    total = sum(one.size for one in found)
    if not asked.yes:
        print(f"{_size(total):>9}  in all; --yes frees it")
        return 0

    def free(one: collect.Garbage) -> tuple[int, str]:
        try:
            return collect.free(one, asked.runs, older_than), ""
        except OSError as error:
            return 0, f"{one.path}: {error.strerror or error}"

    # Waiting for word from holders on other hosts takes a minute each, but not one after another.
    with ThreadPoolExecutor(32) as pool:
        freed = list(pool.map(free, found))
    print(f"{_size(sum(size for size, _ in freed)):>9}  freed")
    failures = [reason for _, reason in freed if reason]
    kept = sum(not size and not reason for size, reason in freed)
    if kept:
        print(f"{'':>9}  {kept} kept: in use since, or gone already")
    for reason in failures[:20]:
        print(f"not freed: {reason}", file=sys.stderr)
    return 1 if failures else 0


def _size(size: int) -> str:
    if size < 1000:
        return f"{size} B"
    value, units = size / 1000, iter(("kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 999.5 and unit != "TB":
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"


def _whole(text: str) -> int:
    value = int(text) if text.isdecimal() else -1
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} must be a whole number, 0 or more")
    return value


def _days(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number of days, 0 or more")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
