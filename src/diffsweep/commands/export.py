"""`diffsweep export`."""

from __future__ import annotations

import argparse

from diffsweep.commands.values import add_trust
from diffsweep.messages import print_lines
from diffsweep.sweep.store.process import import_from


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments to its parser."""
    parser.add_argument("cell", metavar="CELL", help="a cell or fit (the beginning of its name), best or last")
    parser.add_argument("folder", metavar="DIR", help="where to write it; must not be there; or hf://OWNER/NAME")
    parser.add_argument("--format", default="diffusers", metavar="NAME", help="diffusers, the only one (the default)")
    parser.add_argument("--licence", metavar="NAME", help="of the weights, for the model card, as apache-2.0")
    parser.add_argument("--data-licence", metavar="TEXT", help="of the data, where the card does not know it")
    add_trust(parser)


def run(options: argparse.Namespace) -> int:
    """Write the model of a finished run as a folder of diffusers, with a model card and weights in safetensors.

    A network of diffusers becomes stock classes, with the scheduler that samples as the run did, where there is one.
    Any other network becomes a pipeline class of ours: import diffsweep.results.diffusers_pipeline, and the folder
    loads without remote code and draws what the run drew. Autoencoders go with it, as a part of the pipeline.
    """
    from pathlib import Path

    from diffsweep import results

    import_from(Path.cwd())
    written = results.export_model(
        options.cell,
        options.folder,
        format=options.format,
        runs=options.runs,
        licence=options.licence,
        data_licence=options.data_licence,
        trust=options.trust,
    )
    print_lines(f"{options.folder}: {' with '.join(written.classes)}")
    for file in written.files:
        print_lines(f"  {file}")
    if not written.same:
        print_lines("careful: no scheduler of diffusers samples as this run did; the card says how it was")
    print_lines("\nnext:")
    if written.stock and not written.text:
        print_lines(f"  diffsweep import {options.folder} --dataset NAME")
        print_lines("    # the same model, read again")
    else:
        place, _, kind = written.classes[0].rpartition(".")
        print_lines(f"  from {place} import {kind}")
        asked = "'a text'" if written.text else "batch_size=4"
        print_lines(f"  {kind}.from_pretrained({str(options.folder)!r})({asked}).images")
    return 0
