"""Search of a STAC API: its answer is saved as an item collection, so that a run has a file to start from and to repeat."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from geococa._checks import optional_import
from geococa._files import replace_file
from geococa.errors import InputRefused
from geococa.network import allow_net as permitted
from geococa.network import check_address, guarded_session

__all__ = ["search_stac"]


def search_stac(
    url: str,
    path: str | os.PathLike[str],
    *,
    collections: Iterable[str],
    bbox: Sequence[float] | None = None,
    dates: str | None = None,
    query: dict[str, Any] | None = None,
    allow_net: Iterable[str] = (),
    max_items: int = 100_000,
) -> Path:
    """Search a STAC API and save the items found.

    Parameters
    ----------
    url : str
        Address of the API.
    path : path
        Item collection (JSON) to write, for `geococa.find_tiles` and ``geococa run``.
    collections : iterable of str
        Collections to search, such as ``sentinel-2-l2a``.
    bbox : sequence of 4 float, optional
        West, south, east and north in degrees.
    dates : str, optional
        Such as ``2020-01-01/2024-12-31``.
    query : dict, optional
        Of the API's query extension.
    allow_net : iterable of str
        Hosts that may be spoken to; the API's own must be among them.
    max_items : int
        Most items that are taken.

    Returns
    -------
    pathlib.Path
        The file. Items are in the order of their ids, so the same answer gives the same bytes.

    Raises
    ------
    InputRefused
        The host is not allowed, redirects to one that is not, does not answer as a STAC API, or finds nothing.
    MissingExtra
        pystac-client is not installed.
    """
    with permitted(allow_net):
        check_address(url)
        client = optional_import("pystac_client", "stac")
        stac_api_io = optional_import("pystac_client.stac_api_io", "stac")
        reader = stac_api_io.StacApiIO(max_retries=None)
        reader.session = guarded_session()
        try:
            api = client.Client.open(url, stac_io=reader)
            found = api.search(
                collections=list(collections),
                bbox=None if bbox is None else list(bbox),
                datetime=dates,
                query=query,
                max_items=max_items,
            )
            items = sorted(found.items_as_dicts(), key=lambda item: str(item.get("id")))
        except InputRefused:
            raise
        except Exception as error:  # whatever a host answers
            raise InputRefused(f"{url}: did not answer as a STAC API ({error}); check the address") from error
    if not items:
        raise InputRefused(f"{url}: no item of {', '.join(collections)} there; widen bbox or dates")
    document = {"type": "FeatureCollection", "features": items}
    return replace_file(Path(path), (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())
