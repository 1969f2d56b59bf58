"""`diffsweep sample`."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from diffsweep.commands.values import add_trust, whole
from diffsweep.messages import print_lines, say
from diffsweep.report.format import count, duration
from diffsweep.report.next_commands import is_consistency_model
from diffsweep.sweep.store.process import import_from


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("cell", metavar="CELL", help="a cell or fit (the beginning of its name), best or last")
    parser.add_argument("-n", metavar="N", type=whole, default=64, dest="count", help="how many (default: 64)")
    parser.add_argument("--seed", metavar="N", type=int, help="sample seed (default: the cell's own)")
    parser.add_argument("--nfe", metavar="N", type=int, help="network calls a sample (default: the cell's own)")
    parser.add_argument("--sampler", metavar="NAME", help="an option of conf/sampler (default: the cell's own)")
    parser.add_argument("--guidance", metavar="NAME", help="an option of conf/guidance (default: the cell's own)")
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], dest="changes", help="such as guidance.scale=2"
    )
    parser.add_argument(
        "--label", metavar="N", type=whole, nargs="+", default=[], dest="labels", help="what they show, in turn"
    )
    parser.add_argument(
        "--prompt", metavar="TEXT", nargs="+", default=[], dest="prompts", help="texts they are asked for, in turn"
    )
    parser.add_argument("--negative", metavar="TEXT", help="the text that guidance leads away from")
    parser.add_argument("--negative-label", metavar="N", type=whole, help="what guidance leads away from")
    picture = {"metavar": "PICTURE", "nargs": "+", "default": []}
    parser.add_argument("--like", help="ask for the edges, or the coarser version, of these, in turn", **picture)
    parser.add_argument("--from", help="start from these under noise, in turn", dest="start", **picture)
    parser.add_argument(
        "--strength",
        metavar="S",
        type=float,
        default=0.6,
        help="with --from: share of the steps, 1 is from noise (0.6)",
    )
    parser.add_argument("--inpaint", help="paint a part of these anew, in turn: that which --mask says", **picture)
    parser.add_argument("--mask", metavar="PICTURE", help="white where --inpaint paints anew")
    parser.add_argument("--out", metavar="DIR", help="where to put them (default: a folder below samples/)")
    parser.add_argument("--gif", action="store_true", help="also how the first of them come about, step by step")
    parser.add_argument(
        "--device", metavar="NAME", default="auto", help="auto (a GPU if there is one), cpu, gpu, gpu:1"
    )
    parser.add_argument("--config-dir", metavar="DIR", help="folder of options of your own")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Draw images from any finished run, without training: as it was evaluated, but for the options given.

    Image i with seed s is the image i that an evaluation with evaluation.seed=s draws. A sampler that is named gets as
    many network calls as the cell had, unless --nfe says otherwise. DIR gets 000000.png ..., grid.png (the first 100),
    samples.npz (uint8, and the labels, as other tools and `diffsweep evaluate` read them), settings.json with what each
    was asked for; videos are 000000.gif ... and grid.gif, sounds 000000.wav ... and grid.wav, points samples.npy.
    """
    import_from(Path.cwd())
    from diffsweep import results
    from diffsweep.data.modality import IMAGES
    from diffsweep.runs.trust import trusting
    from diffsweep.settings import GivenPictures

    with trusting(*filter(None, [options.config_dir]), everything=options.trust):
        request = results.sample_request(
            options.cell,
            seed=options.seed,
            nfe=options.nfe,
            sampler=options.sampler,
            guidance=options.guidance,
            changes=options.changes,
            runs=options.runs,
            device=options.device,
            config_dir=options.config_dir,
            labels=options.labels,
            negative_label=options.negative_label,
            given=GivenPictures(options.like, options.start, options.strength, options.inpaint, options.mask),
            prompts=options.prompts,
            negative_prompt=options.negative,
        )
        from diffsweep.runs import resample

        out = Path(options.out or f"samples/{request.name}")
        resample.check_folder(out)
        drawn = resample.resample(
            request.cfg,
            request.fit,
            options.count,
            seed=request.seed,
            follow=options.gif,
            given=request.given,
            choice=request.choice,
        )
        files = resample.write(drawn, out, request.settings(drawn))
    if drawn.broken:
        say(f"careful: {count(drawn.broken)} of {count(options.count)} are not finite")
    chosen = " ".join(f"{group}={choice}" for group, choice in request.choices.items())
    print_lines(f"{count(options.count)} of {request.record.signature} ({chosen or 'as it was trained'})")
    print_lines(
        f"{drawn.nfe:g} network calls a sample, seed {request.seed}, {duration(drawn.seconds)} on {drawn.device}", ""
    )
    for title, file in files.items():
        print_lines(f"{title:<10} {out / file.name}")
    runs = [] if options.runs == "runs" else ["--runs", options.runs]
    suggested: list[tuple[list[str], str]] = []
    if drawn.modality == IMAGES:
        dataset = request.choices.get("dataset", "DATASET")
        words = ["evaluate", str(out / files["numbers"].name), "--reference", dataset, *runs]
        suggested.append((words, "their score; tables compare equal numbers of samples (-n)"))
    if not is_consistency_model(request.record.config()):
        other = "ddim" if request.choices.get("sampler") == "heun" else "heun"
        words = ["sample", request.record.signature, "--sampler", other, "--seed", str(request.seed), *runs]
        suggested.append((words, "another sampler from the same noise"))
    if suggested:
        print_lines("", "next:")
    for words, why in suggested:
        print_lines(f"  diffsweep {shlex.join(words)}", f"    # {why}")
    return 0
