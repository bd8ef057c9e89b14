"""Start the server and stop it."""

from __future__ import annotations

import importlib.util
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from napari_strata.errors import ServeError
from napari_strata.pipeline import propose_with
from napari_strata.proposal.proposal import Proposal
from napari_strata.serve.guard import SHORTEST_TOKEN, Access, is_local_host
from napari_strata.serve.models import Model
from napari_strata.serve.service import Service
from napari_strata.serve.sources import ImageSource
from napari_strata.serve.store import open_store
from napari_strata.settings import ProposeSettings, RunSettings, ServeSettings
from napari_strata.volume import Progress, Volume

INSTALL = 'python -m pip install "napari-strata[serve]"'
_NEEDED = ("fastapi", "uvicorn", "python_multipart")
_GRACE_S = 5
"""Seconds that requests have to end when the server stops."""


def check_installed() -> None:
    """Check that the packages of the extra `serve` are installed.

    Raises
    ------
    ServeError
        If one is not.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ServeError(
            f"`strata serve` needs {', '.join(missing)}, which is not installed. Install"
            f" it: {INSTALL}"
        )


def read_token(path: Path) -> str:
    """Read a token from a file.

    Raises
    ------
    ServeError
        If it cannot be read, or is too short.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as err:
        raise ServeError(f"Cannot read the token from {path}. Check the path.") from err
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ServeError(
            f"The token in {path} is too short. Write at least {SHORTEST_TOKEN} letters"
            " and digits in one line."
        )
    return token


def access_of(
    settings: ServeSettings, *, token: str = "", origins: Sequence[str] = ()
) -> Access:
    """Return who may speak to a server.

    A server that others can reach gets a token if none is given.

    Raises
    ------
    ServeError
        If an origin is no origin.
    """
    for origin in origins:
        scheme, _, rest = origin.partition("://")
        if scheme not in ("http", "https") or not rest or "/" in rest or "*" in rest:
            raise ServeError(
                f"{origin!r} is no origin. Write one as http://localhost:3000, with the"
                " port and without a path."
            )
    is_local = is_local_host(settings.host)
    if not is_local and not token:
        token = secrets.token_urlsafe(24)
    return Access(token, tuple(origins), is_local, settings.max_upload_mb * 1_000_000)


def proposer_of(
    settings: ProposeSettings, run: RunSettings, weights: Path | None
) -> Callable[[Volume, Progress], Proposal]:
    """Return a function that proposes as the settings say."""

    def proposed(volume: Volume, on_progress: Progress) -> Proposal:
        return propose_with(
            volume, settings, run, weights=weights, on_progress=on_progress
        )

    return proposed


def serve(
    settings: ServeSettings,
    models: dict[str, Model],
    proposer: Callable[[Volume, Progress], Proposal],
    access: Access,
    *,
    keep: Path | None = None,
    source: ImageSource | None = None,
    on_start: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve until the process is told to stop.

    Parameters
    ----------
    settings : ServeSettings
        Where to listen, and the bounds.
    models : dict of Model
        What clients can ask for.
    proposer : callable
        Makes a proposal of a volume.
    access : Access
        Who may speak to the server.
    keep : Path or None
        Folder in which scans and labels stay; None to keep nothing.
    source : ImageSource or None
        Where scans come from that clients name but did not send.
    on_start : callable
        Called with the server's address when clients can connect.

    Raises
    ------
    ServeError
        If a package is missing, or the server cannot listen there.
    """
    check_installed()
    import uvicorn

    from napari_strata.serve.application import create_app

    with ExitStack() as stack:
        listening = stack.enter_context(_listening(settings))
        store = stack.enter_context(open_store(keep, settings))
        service = Service(store, models, proposer, settings, source=source)
        config = uvicorn.Config(
            create_app(service, access),
            log_config=None,
            access_log=False,  # it would name scans
            server_header=False,
            timeout_graceful_shutdown=_GRACE_S,
        )
        host, port = listening.getsockname()[:2]
        on_start(f"http://{f'[{host}]' if ':' in host else host}:{port}")
        uvicorn.Server(config).run(sockets=[listening])


def _listening(settings: ServeSettings) -> socket.socket:
    """Return a socket that listens where the settings say.

    Raises
    ------
    ServeError
        If the address cannot be used.
    """
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM
        )[0]
        listening = socket.socket(family, kind, number)
    except OSError as err:
        raise ServeError(
            f"Cannot listen on {settings.host}: {err.strerror}. Choose another --host."
        ) from err
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()  # clients may connect before the first answer
    except OSError as err:
        listening.close()
        raise ServeError(
            f"Cannot listen on {settings.host}, port {settings.port}: {err.strerror}."
            " Choose another --port, or stop what uses it."
        ) from err
    return listening
