"""The command line `diffsweep COMMAND`. Each command is one file here.

A command's file has `arguments(parser)`, which adds its arguments to its parser, and `run(options)`, which does the
work by calling other folders, returns the exit code, and has the command's help as its docstring. Only the file of the
command that was typed is imported; it imports torch, or what is as slow, where it computes. `train` has no arguments of
its own: Hydra reads its words.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from importlib import metadata

from diffsweep import mistakes
from diffsweep.lazy_torchmetrics import import_lazily
from diffsweep.project import with_joined_folders

import_lazily()

# Name -> what it is for, in one line; its file is called alike.
COMMANDS = {
    "train": "one run of GROUP=OPTION ..., or a sweep with -m: train, sample, score; --help lists all options",
    "init": "a project folder with an own dataset, backbone, sampler, experiment and study, to be changed",
    "data": "what is in a folder, zip, tar or table of pictures, videos or sounds, and what training costs",
    "options": "every choice that there is: what it is, and the defaults of its keys",
    "explain": "a key, as sampler.spacing.rho: meaning, range, default, who reads it, which options set it",
    "plan": "what a sweep would train and evaluate, and what is done of it already; runs nothing",
    "prefetch": "fetch data and weights, compute statistics: for nodes without internet",
    "status": "what goes on in a sweep, or a line about each",
    "resume": "do what a sweep lacks: what is missing or failed, and only that",
    "cancel": "stop a sweep's processes or SLURM jobs; what is finished stays",
    "results": "finished cells as a table, CSV, JSON or Parquet",
    "compare": "two cells, or two trainings, side by side: settings, numbers, samples",
    "report": "one HTML page about a sweep, or about the results that you choose",
    "evaluate": "score anybody's images as a run's samples are scored",
    "import": "a model that was trained elsewhere becomes a finished fit",
    "export": "a run's model as a folder of diffusers, with a model card",
    "sample": "new images of a finished run: another sampler, guidance, nfe or seed",
    "wandb-sync": "W&B runs of a sweep, fit, cell or of everything, from our own files",
    "gc": "what could be freed; frees it with --yes",
    "completion": "what completes words in bash, zsh or fish: commands, options, keys, sweeps, cells",
}


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words` (default: those of the command line) name, and return the exit code."""
    mistakes.refuse_lost_working_folder()
    if words is None and "_ARGCOMPLETE" in os.environ:
        from diffsweep.commands import completion

        completion.answer(command_parser)
    words = sys.argv[1:] if words is None else list(words)
    # Argparse takes the first word for the command.
    words = sorted(with_joined_folders(words), key=lambda word: word.startswith("--config-dir="))
    if words[:1] == ["train"]:
        from diffsweep.commands import train

        return train.run(words[1:])
    parser = command_parser(words)
    options, rest = parser.parse_known_args(words)
    # argparse takes positional words from one place only; people write them between options as well.
    if "filters" in options and not any(word.startswith("-") for word in rest):
        options.filters += rest
    elif "overrides" in options:
        # Options of train.py, such as --config-dir.
        options.overrides += rest
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        code = options.run(options)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Whoever read has seen enough; what is still buffered must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        return mistakes.report(error, "diffsweep: ")


def command_parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of the one that `words` begin with."""
    parser = argparse.ArgumentParser(
        prog="diffsweep",
        description="Which choice is better? Train each model once, evaluate it with every sampler.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {metadata.version('diffsweep')}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        added = commands.add_parser(name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter)
        if words[:1] == [name] and name != "train":
            command = importlib.import_module(f"diffsweep.commands.{name.replace('-', '_')}")
            added.description = inspect.getdoc(command.run)
            added.add_argument("--runs", metavar="DIR", default="runs", help="folder of the runs (default: runs)")
            command.arguments(added)
            added.set_defaults(run=command.run)
    return parser
