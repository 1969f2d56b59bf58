"""The W&B server: whether it can be used from here, and the errors of its client in one line."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlparse
from urllib.request import getproxies, proxy_bypass

from diffsweep.tracking.wandb_settings import WandbSettings

if TYPE_CHECKING:
    from wandb import Settings

# Seconds that the server is waited for before it counts as unreachable.
_PROBE = 3.0

# Server and project -> why this process could not use it: it is not waited for again, which would cost a minute at each
# of many cells.
_unusable: dict[str, str] = {}


def reachable() -> str | None:
    """Why W&B cannot be online here; None if there is a key and the server accepts a connection within 3 s.

    wandb.init itself would wait for an unreachable server for minutes, and for a key at a terminal for ever.
    """
    try:
        settings = client_settings()
        from wandb.sdk.lib.wbauth import read_netrc_auth

        known = settings.api_key or settings.identity_token_file or read_netrc_auth(host=settings.base_url)
    except Exception as error:
        # Such as a text that cannot be a key.
        return one_line(error)
    address = urlparse(settings.base_url)
    host = address.hostname or ""
    if not known:
        return f"there is no key for {host} (`wandb login` stores one)"
    proxy = None if proxy_bypass(host) else getproxies().get(address.scheme)
    peer = urlparse(proxy) if proxy else address
    try:
        port = peer.port or (80 if peer.scheme == "http" else 443)
        with socket.create_connection((peer.hostname or host, port), timeout=_PROBE):
            return None
    except (OSError, ValueError):
        return f"{peer.hostname} does not answer"


def client_settings() -> Settings:
    """W&B's own settings, from its variables and from what `wandb login --host` and `wandb offline` have stored."""
    # Before it is loaded: what it says at the start of each run would be said once per cell.
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb.setup().settings


def offline(settings: WandbSettings) -> tuple[bool, str | None]:
    """Whether a run is to be offline; and, if only because the server cannot be used, why it cannot."""
    if settings.mode == "offline" or (settings.mode == "auto" and client_settings().mode in ("offline", "dryrun")):
        return True, None
    server = server_and_project(settings)
    why = _unusable.get(server) or reachable()
    if why:
        _unusable[server] = why
    return why is not None, why


def remember_unusable(settings: WandbSettings, reason: str) -> None:
    """Have every later run of this process that uses the same server and project be offline."""
    _unusable[server_and_project(settings)] = reason


def server_and_project(settings: WandbSettings) -> str:
    """A name of the server and the project; an address may hold a password, which is left out."""
    address = urlparse(client_settings().base_url)
    return f"{address.hostname}:{address.port or address.scheme} {settings.entity or ''} {settings.project}"


def one_line(error: BaseException) -> str:
    """What an error of W&B's client says, in at most 300 characters and without keys."""
    # What a server answers may hold what was sent to it.
    text = re.sub(r"\b[0-9a-f]{40}\b|\bwandb_v1_\w+", "...", " ".join(str(error).split()))
    return text[:300] or type(error).__name__
