"""The network is off unless a host is named: one list of allowed hosts, one guarded session, one check of addresses.

A catalog is data from elsewhere, and an address in it is no reason to call anybody: it could name a machine inside the
user's own network. So only hosts that the user names are spoken to, also where one of them answers with a redirect.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from geococa._checks import optional_import
from geococa.errors import InputRefused

__all__ = ["allow_net", "allowed_hosts", "guarded_session", "is_address", "remote_path"]

_allowed: ContextVar[tuple[str, ...]] = ContextVar("allowed", default=())
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?(:\d{1,5})?")
_CLOUD = {
    "s3": ("/vsis3/", "AWS_S3_ENDPOINT", "s3.amazonaws.com"),
    "gs": ("/vsigs/", "CPL_GS_ENDPOINT", "storage.googleapis.com"),
    "az": ("/vsiaz/", "AZURE_STORAGE_ACCOUNT", ""),
}
"""Prefix of GDAL, environment variable with the host, and the host without it, by scheme."""
_TIMEOUT_S = 60
MAX_DOWNLOAD = 256 * 2**20
"""Largest document that is fetched whole, bytes."""


@contextmanager
def allow_net(hosts: Iterable[str]) -> Iterator[None]:
    """Allow the named hosts, and nothing else, within a block.

    Parameters
    ----------
    hosts : iterable of str
        Names such as ``earth-search.aws.element84.com``; a name allows its subdomains. With a port, only that port.

    Raises
    ------
    InputRefused
        Not the name of a host.
    """
    names = tuple(str(host).strip().lower() for host in hosts)
    for name in names:
        if not _HOST.fullmatch(name):
            raise InputRefused(f"--allow-net {name!r} is not the name of a host; give one such as data.example.org")
    token = _allowed.set((*_allowed.get(), *names))
    try:
        yield
    finally:
        _allowed.reset(token)


def allowed_hosts() -> tuple[str, ...]:
    """Hosts that may be spoken to now."""
    return _allowed.get()


def is_address(text: str) -> bool:
    """Whether a text names something elsewhere, or something that only looks like a path, rather than a file."""
    return bool(re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]*:", text)) or text.startswith(("/vsi", "//", "\\\\"))


def _permitted(host: str, port: int | None) -> bool:
    for name in _allowed.get():
        known, _, number = name.partition(":")
        if (host == known or host.endswith(f".{known}")) and (not number or int(number) == port):
            return True
    return False


def check_address(url: str) -> str:
    """Return an http or https address whose host is allowed.

    Raises
    ------
    InputRefused
        Another scheme, credentials in the address, or a host that is not allowed.
    """
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InputRefused(f"{url[:200]!r} is not an address ({error})") from None
    strange = re.search(r"[\s\\\x00-\x1f]", url) is not None
    if parts.scheme not in ("http", "https") or not host or strange or parts.username is not None:
        raise InputRefused(f"{url[:200]!r} is no plain http or https address; geococa fetches nothing else")
    if not _permitted(host, port):
        raise InputRefused(
            f"{url[:200]}: nothing is fetched from {host}; allow it with --allow-net {host}, or fetch the files first"
        )
    return url


def remote_path(href: str) -> str | None:
    """Path under which GDAL reads a remote raster, or None where its host is not allowed.

    Understood are ``https://``, ``s3://``, ``gs://``, ``az://`` and GDAL's ``/vsis3/``, ``/vsigs/``, ``/vsiaz/`` and
    ``/vsicurl/http...``. What GDAL's other file systems would do with a name from a catalog is nobody's guess.
    """
    if not re.search(r"\.(tiff?|jp2)$", urlsplit(href).path if "://" in href else href, re.IGNORECASE):
        return None
    plain = href.removeprefix("/vsicurl/")
    if re.match(r"https?://", plain):
        try:
            return f"/vsicurl/{check_address(plain)}"
        except InputRefused:
            return None
    for scheme, (prefix, variable, default) in _CLOUD.items():
        start = next((start for start in (f"{scheme}://", prefix) if href.startswith(start)), None)
        key = "" if start is None else href[len(start) :]
        if start is None or not re.fullmatch(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._=+@ -]+)+", key) or "/../" in f"/{key}/":
            continue
        endpoint = os.environ.get(variable, "")
        if scheme == "az":
            endpoint = f"{endpoint}.blob.core.windows.net" if endpoint else ""
        host, _, port = (re.sub(r"^https?://", "", endpoint) or default).partition("/")[0].partition(":")
        if host and _permitted(host.lower(), int(port) if port.isdigit() else 443):
            return prefix + key
    return None


def guarded_session() -> Any:
    """Return a ``requests`` session that speaks to allowed hosts only, hop by hop where a host redirects."""
    requests = optional_import("requests", "stac")

    class Guard(requests.adapters.HTTPAdapter):  # type: ignore[name-defined]
        def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
            check_address(str(request.url))
            kwargs["timeout"] = kwargs.get("timeout") or _TIMEOUT_S
            return super().send(request, *args, **kwargs)

    session = requests.Session()
    session.trust_env = False  # no proxy or password file that the user did not name here
    for scheme in ("http://", "https://"):
        session.mount(scheme, Guard(max_retries=2))
    session.max_redirects = 5
    return session


def fetch(url: str) -> bytes:
    """Fetch a document from an allowed host."""
    session = guarded_session()
    with session.get(check_address(url), stream=True) as answer:
        answer.raise_for_status()
        data = bytearray()
        for part in answer.iter_content(2**20):
            data += part
            if len(data) > MAX_DOWNLOAD:
                raise InputRefused(f"{url}: more than {MAX_DOWNLOAD} bytes; this is no catalog")
    return bytes(data)
