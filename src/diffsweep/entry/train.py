"""The command line: from a composed config to its result, in one line of error for a user's mistake.

Nothing here imports torch until something must be computed: a finished run answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import CompactHydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError

from diffsweep.entry import sweep_end
from diffsweep.entry.launch import Refusal
from diffsweep.report import terminal
from diffsweep.sweep.plan import prepare
from diffsweep.sweep.store.process import import_from
from diffsweep.sweep.store.record import Run, write_json


class Refused(CompactHydraException):
    """A user's mistake: Hydra prints its one line and no traceback."""


def job(cfg: DictConfig) -> float | None:
    """Complete one run and show it, or say one line if it is one of a sweep.

    A `_target_` may name a module of the working folder: a user's own solver needs no installation.

    Raises:
        Refused: with one line for a bad value, bad choices, unreadable data, a folder that cannot be written, or a
            `_target_` that cannot be loaded.
    """
    hydra = HydraConfig.get()
    single = hydra.mode != RunMode.MULTIRUN
    # A user's own folder of options is part of what was asked for, and of the commands that are suggested next.
    folders = [
        f"--config-dir={source.path}" for source in hydra.runtime.config_sources if source.provider == "command-line"
    ]
    # As they were typed: what names another key must name it in the commands that are suggested, too.
    typed: Any = OmegaConf.to_container(hydra.overrides.task, resolve=False)
    overrides = [*folders, *typed]
    note: dict[str, Any] = {"overrides": " ".join(overrides)}
    import_from(hydra.runtime.cwd)
    try:
        run = Run.of(cfg, OmegaConf.to_container(hydra.runtime.choices))  # type: ignore[arg-type]
        note |= {"fit": run.fit.signature, "cell": run.cell.signature}
        asked = prepare.mode(cfg)
        if asked == "prefetch":
            from diffsweep.runs.prefetch import prefetch

            print(prefetch(cfg))
            return None
        result = None if asked == "force" else run.cell.result()
        if result is None:
            if asked in ("plan", "read_only"):
                raise ValueError(f"mode={asked} runs nothing: {_missing(run)}")
            if asked == "cached" and (reason := run.cell.error()) is not None:
                raise ValueError(f"failed before ({reason}); mode=retry does it again")
            if asked == "force":
                prepare.undo(run)
            from diffsweep.runs.stages import complete

            result = complete(cfg, run, overrides, None if single else Path(hydra.sweep.dir).name)
        elif single:
            print("already done", file=sys.stderr)
    except (ValueError, OSError) as error:
        note["reason"] = " ".join(str(error).split())
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        raise Refused(note["reason"]) from error
    except Exception as error:
        note["reason"] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise
    finally:
        if not single:
            write_json(Path(hydra.sweep.dir) / "jobs" / f"{hydra.job.num}.json", note)
    if result is None:
        return None
    if single:
        terminal.show_result(result, runs=cfg.paths.runs)
    else:
        print(terminal.line(result), file=sys.stderr, flush=True)
    return result[result["metric"]]


def _missing(run: Run) -> str:
    training = "is trained" if run.fit.done else "is to be trained"
    return f"fit {run.fit.signature} {training}, cell {run.cell.signature} is to be evaluated"


def run(main: Callable[[], object]) -> None:
    """Run a Hydra main to its end: whatever happened to single cells, a sweep's table is shown.

    The exit code is 0 if everything is finished, 2 for a user's mistake, 1 for any other failure, 130 after Ctrl-C.
    """
    code = 0
    # argparse takes overrides from one place only; people write -m anywhere among them.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    # A callback of the user's is loaded before any job is.
    import_from(Path.cwd())
    try:
        main()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except SystemExit as stop:
        mistake = stop.__context__
        if isinstance(mistake, Refusal):
            # It has not begun, so there is nothing to show.
            sweep_end.forget()
        if isinstance(mistake, CompactHydraException):
            parent: Any = getattr(mistake.__cause__, "parent_node", None)
            if isinstance(mistake.__cause__, ConfigKeyError | ConfigAttributeError) and OmegaConf.is_dict(parent):
                print(f"valid keys there: {', '.join(sorted(map(str, parent)))}", file=sys.stderr)
            raise SystemExit(2) from None
        raise
    finally:
        finished = sweep_end.show_last()
    if code or not finished:
        raise SystemExit(code or 1)
