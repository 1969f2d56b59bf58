"""`diffsweep import`."""

from __future__ import annotations

import argparse
import shlex

from diffsweep.commands.values import add_trust
from diffsweep.messages import print_lines
from diffsweep.project import train_command


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("source", metavar="SOURCE", help="folder or file of the model, or hf://OWNER/NAME")
    parser.add_argument("--dataset", metavar="NAME", required=True, help="an option of conf/dataset: its data")
    parser.add_argument("--config-dir", metavar="DIR", help="folder of options of your own")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="more of the config, as dataset.path=photos/")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Make a finished fit of a model that was trained elsewhere: its samples are then drawn, scored and swept as ours.

    SOURCE is one of
      a folder of diffusers     model_index.json with unet/ or transformer/ and scheduler/, or a network's config.json
      a folder of k-diffusion   config.json and weights in safetensors
      a folder with model.yaml  weights of DiT or SiT, or of any torch module of yours (docs/checkpoints.md)
      the name of a fit         that was imported before, for another dataset

    The weights are copied; the fit is known by their content. No code of SOURCE is run, and no pickle is opened that
    holds more than tensors. `python train.py pretrained=SOURCE ...` does the same and scores the model at once.
    """
    from diffsweep import results

    words = list(options.overrides)
    found = results.import_model(
        options.source,
        options.dataset,
        overrides=words,
        runs=options.runs,
        config_dir=options.config_dir,
        trust=options.trust,
    )
    print_lines(str(options.source))
    for line in found.understood:
        print_lines(f"  {line}")
    print_lines(f"fit {found.fit.signature}, imported: {found.fit.folder}")
    named = found.fit.signature
    # Twelve digits, or digits and one e, are a number to a command line.
    named = named if any(letter in "abcdf" for letter in named) else f"'\"{named}\"'"
    place = [] if options.runs == "runs" else [f"paths.runs={options.runs}"]
    place += [f"--config-dir={options.config_dir}"] if options.config_dir else []
    rest = shlex.join([f"dataset={options.dataset}", *words, *place])
    runs = [] if options.runs == "runs" else ["--runs", options.runs]
    print_lines("\nnext:")
    print_lines(
        f"  {train_command()} -m pretrained={named} {rest} sampler=ddim,dpmpp_2m,unipc,heun sampler.nfe=5,10,20"
    )
    print_lines("    # which sampler at which cost; nothing is trained")
    print_lines(f"  diffsweep {shlex.join(['sample', found.fit.signature, *runs])}")
    print_lines("    # some of its pictures")
    return 0
