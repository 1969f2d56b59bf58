"""Mirrors of the record: Lightning's own CSV and W&B loggers, one W&B run per fit and per cell, safe without network.

The files of a run are the record; a mirror that is lost can be made again from them.
"""

from __future__ import annotations

import netrc
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

MODES = ("auto", "online", "offline")


@dataclass(frozen=True)
class Subject:
    """What is logged: one fit or one cell.

    Attributes:
        kind: "fit" or "cell".
        signature: Its id, so that a resumed run goes on in the same log.
        folder: Its folder.
        name: For people, as "unet cosine v".
        group: The sweep it belongs to, if any.
        config: The resolved config.
    """

    kind: Literal["fit", "cell"]
    signature: str
    folder: Path
    name: str
    group: str | None
    config: Mapping[str, Any]


def csv(subject: Subject) -> Logger:
    """metrics.csv in the folder's ``csv``, written from metrics.jsonl's lines as they appear."""
    return CSVLogger(save_dir=subject.folder, name="", version="csv")


def wandb(subject: Subject, project: str = "diffsweep", entity: str | None = None, mode: str = "auto") -> Logger:
    """A W&B run named by the signature: the same run when a job resumes.

    Args:
        subject: What is logged.
        project: W&B project.
        entity: W&B team or user; None is the user's default.
        mode: "online", "offline", or "auto": online if there is a key and the server answers within 3 s.

    Raises:
        ValueError: for another mode.
    """
    if mode not in MODES:
        raise ValueError(f"logger mode={mode} is unknown: choose one of {', '.join(MODES)}")
    offline = mode == "offline" or (mode == "auto" and not _reachable())
    config = {key: value for key, value in subject.config.items() if key not in ("hydra", "paths", "logger")}
    return WandbLogger(
        name=subject.name,
        save_dir=subject.folder,
        project=project,
        entity=entity,
        offline=offline,
        id=subject.signature,
        resume="allow",
        group=subject.group,
        job_type=subject.kind,
        config=config,
    )


def finish(logger: Logger, *, failed: bool) -> str | None:
    """End a logger's run; says how to sync a W&B run that stayed offline."""
    logger.finalize("failed" if failed else "success")
    if not isinstance(logger, WandbLogger):
        return None
    run: Any = logger.experiment
    folder = Path(run.dir).parent if run.settings._offline else None
    run.finish(exit_code=int(failed))
    return f"wandb sync {folder}" if folder else None


def _reachable() -> bool:
    """Whether there is a key and the server accepts a connection: an unreachable one blocks wandb.init for minutes."""
    address = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    host = address.hostname or "api.wandb.ai"
    if not os.environ.get("WANDB_API_KEY"):
        try:
            if netrc.netrc().authenticators(host) is None:
                return False
        except (OSError, netrc.NetrcParseError):
            return False
    try:
        with socket.create_connection((host, address.port or (80 if address.scheme == "http" else 443)), timeout=3):
            return True
    except OSError:
        return False
