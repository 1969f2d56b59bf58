"""The command line: from a composed config to its result, in one line of error for a user's mistake.

Nothing here imports torch until something must be computed: a finished run answers at once.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra._internal import utils as hydra_utils
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from diffsweep import caller
from diffsweep.entry import cell_configs, sweep_end
from diffsweep.messages import print_lines, say
from diffsweep.mistakes import (
    MISTAKE,
    alternatives,
    did_you_mean,
    is_mistake,
    one_line,
    refuse_lost_working_folder,
    report,
)
from diffsweep.project import main_conf, with_joined_folders
from diffsweep.ranks import check_environment
from diffsweep.report import terminal
from diffsweep.sweep.plan import prepare
from diffsweep.sweep.plan.added_parameters import accept_added_parameters
from diffsweep.sweep.plan.folders import refuse_impossible_folders, sweep_name
from diffsweep.sweep.plan.imported_options import with_imported_options
from diffsweep.sweep.plan.mode import Mode
from diffsweep.sweep.plan.sense import doubts
from diffsweep.sweep.plan.unread_keys import PARTS, refuse_unread
from diffsweep.sweep.store.environment import recorded
from diffsweep.sweep.store.override_words import joined, option_folders
from diffsweep.sweep.store.process import import_from
from diffsweep.sweep.store.record import Run, write_json
from diffsweep.sweep.store.signature import resolved


def job(cfg: DictConfig) -> float | None:
    """Complete one run and show it, or say one line if it is one of a sweep.

    A `_target_` may name a module of the working folder: a user's own solver needs no installation.

    Raises:
        SystemExit: in a single run, after the line about a bad value, bad choices, a folder that cannot be written, or
            a `_target_` that cannot be loaded. In a sweep what these raise.
    """
    node = HydraConfig.get()
    single = node.mode != RunMode.MULTIRUN
    # As they were typed: what names another key must name it in the commands that are suggested, too.
    typed: Any = OmegaConf.to_container(node.overrides.task, resolve=False)
    # A user's own folder of options is part of what was asked for, and of the commands that are suggested next.
    overrides = [*option_folders(node), *typed]
    note: dict[str, Any] = {"overrides": joined(overrides)}
    import_from(node.runtime.cwd)
    # Where the user is, as in a sweep, whatever hydra.job.chdir says: what is printed is to be typed there.
    os.chdir(node.runtime.cwd)
    try:
        refuse_unread(cfg)
        if cell_configs.shows_configs():
            cell_configs.show_one(overrides, recorded(cfg))
            return None
        refuse_impossible_folders(cfg.paths)
        if single and sweep_name(cfg) is not None:
            raise ValueError(f"sweep.name={cfg.sweep.name} names a sweep, and this is a single run: add -m")
        run = Run.of(cfg, OmegaConf.to_container(node.runtime.choices))  # type: ignore[arg-type]
        if single:
            runs = Path(cfg.paths.runs).absolute()
            caller.tell(fit=run.fit.signature, cell=run.cell.signature, runs=str(runs))
        note |= {"fit": run.fit.signature, "cell": run.cell.signature}
        mode = Mode.of(cfg)
        if mode.fetches_data:
            from diffsweep.runs.prefetch import prefetch

            print_lines(prefetch(cfg))
            return None
        result = None if mode.forces else run.cell.result()
        if result is None:
            if single:
                say(*(f"careful: {text}" for text in doubts(resolved(cfg))))
            if mode.shows_plan:
                from diffsweep.runs.stages import build

                build(cfg)
            if not mode.runs_jobs:
                raise ValueError(f"mode={mode.value} runs nothing: {_missing(run)}")
            if mode.keeps_failures and (reason := run.cell.error()) is not None:
                raise ValueError(f"failed before ({reason}); mode=retry does it again")
            if mode.forces:
                prepare.reset_run(run)
            from diffsweep.runs.stages import complete

            result = complete(cfg, run, overrides, None if single else Path(node.sweep.dir).name)
        elif single:
            say("already done")
    except Exception as error:
        note["reason"] = one_line(error)
        if single and is_mistake(error):
            # Past Hydra, which would add a line of its own.
            raise SystemExit(_report(error)) from None
        raise
    finally:
        if not single:
            write_json(Path(node.sweep.dir) / "jobs" / f"{node.job.num}.json", note)
    if result is None:
        return None
    if single:
        terminal.show_result(result, runs=cfg.paths.runs)
    else:
        say(terminal.line(result))
    return result.main.value


def _missing(run: Run) -> str:
    training = "is trained" if run.fit.done else "is to be trained"
    return f"fit {run.fit.signature} {training}, cell {run.cell.signature} is to be evaluated"


def main() -> None:
    """What `diffsweep train` and train.py do with the words of the command line, in sys.argv."""
    run(hydra.main(version_base="1.3", config_path=str(main_conf()), config_name="config")(job))


def run(main: Callable[[], object]) -> None:
    """Run a Hydra main to its end: whatever happened to single cells, a sweep's table is shown.

    The exit code is 0 if everything is finished, 2 for a user's mistake, 1 for any other failure, 130 after Ctrl-C.
    """
    code = 0
    refuse_lost_working_folder()
    if (mistake := _unknown_option(sys.argv[1:]) or _list_of_options(sys.argv[1:])) is not None:
        raise SystemExit(_report(mistake))
    # argparse takes overrides from one place only; people write options anywhere among them.
    words = with_joined_folders(sys.argv[1:])
    sys.argv[1:] = cell_configs.take(sorted(words, key=lambda word: not _is_option(word)))
    # A callback of the user's is loaded before any job is.
    import_from(Path.cwd())
    # Hydra answers a mistake with up to fifty lines; ours are told in one place.
    hydra_utils.run_and_report = lambda function: function()
    accept_added_parameters()
    # No option of that group is chosen before, so Hydra would only add one.
    sys.argv[1:] = [f"+{word}" if word.startswith("sweeps=") else word for word in sys.argv[1:]]
    try:
        sys.argv[1:] = with_imported_options(sys.argv[1:])
        check_environment()
        main()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except Exception as error:
        code = _report(_no_option(error) or error)
    finally:
        if cell_configs.shows_configs():
            sweep_end.forget()
        finished = sweep_end.show_last()
    if code or not finished:
        raise SystemExit(code or 1)


def _report(error: Exception) -> int:
    """Tell a mistake to whoever asked: the Python process that started this one, or the user at the terminal."""
    if not caller.is_told() or not is_mistake(error):
        return report(error)
    caller.tell(mistake=one_line(error))
    return MISTAKE


def _is_option(word: str) -> bool:
    """Whether it is an option of Hydra's of one word that people write among overrides."""
    return word in ("-m", "--multirun") or word.startswith("--config-dir=")


def _unknown_option(words: list[str]) -> ValueError | None:
    """The mistake of the first word with dashes in front that is none of Hydra's options."""
    known = [name for action in hydra_utils.get_args_parser()._actions for name in action.option_strings]
    for word in words:
        name, equals, _ = word.partition("=")
        # An option may be cut where it stays unique.
        if word.startswith("--") and name != "--" and not any(one.startswith(name) for one in known):
            hint = f": an override has no dashes, as {word[2:]}" if equals else did_you_mean(name, known)
            return ValueError(f"{name} is no option{hint} (--hydra-help lists them)")
    return None


def _list_of_options(words: list[str]) -> ValueError | None:
    """The mistake of a word that gives a list to a group of which a run has one: Hydra would mix their settings."""
    for word in words:
        group, _, value = word.partition("=")
        found = re.search(r"\[([^\]]*,[^\]]*)\]", value)
        if group.partition("/")[0] in PARTS and "." not in group and found:
            return ValueError(f"{word}: a run has one {group}; to compare several: -m {group}={found[1]}")
    return None


def _no_option(error: Exception) -> ValueError | None:
    """The mistake of a word such as `logger=null`, whose value can be no option's name; Hydra names no word."""
    if "Config group override must be a string" not in str(error):
        return None
    for word in sys.argv[1:]:
        group, _, values = word.lstrip("+").partition("=")
        folder = main_conf() / group.partition("@")[0]
        options = sorted(path.stem for path in folder.glob("*.yaml"))
        for value in values.split(",") if options else ():
            if value not in options and re.fullmatch(r"null|true|false|[-+.\d][-+.\de]*|", value, re.IGNORECASE):
                near = ["none"] if "none" in options and value in ("null", "false", "") else []
                hint = f": did you mean {group}=none?" if near else did_you_mean(value, options)
                few = f": choose one of {alternatives(options)}" if len(options) < 13 else ""
                return ValueError(f"{word} names no option{hint or few} (--help lists all options)")
    return None
