"""Links in catalogs, tables and archives: none leads outside (threat 8), none calls a host that is not allowed (threat 9)."""

from __future__ import annotations

import json
import os
import socket
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geococa.errors import GeococaError, InputRefused
from geococa.network import allow_net, check_address, remote_path
from geococa.stac_catalogs import resolve_href
from geococa.tile_search import search_tiles
from tests.scene_files import stac_item, write_band
from tests.security.test_disguises import listener

__all__ = ["listener"]

PARTS = [
    "..", ".", "", "a", "data", "B04.tif", "secret.tif", "%2e%2e", "%2E%2E%2F", "..%2f", "%252e%252e", "..\\", "\\..\\", "~",
    "$HOME", "....//", "..;", "/", "//", "etc", "passwd", "link", "\u2025", "\uff0e\uff0e", " ", "C:", "file:", "file://",
    "file:///", "file://localhost/", "?x=..", "#../..", "\t..", "..\n", "nul", "a" * 300,
]  # fmt: skip

hrefs = st.one_of(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=8).map("/".join),
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join),
    st.text(alphabet=string.printable, max_size=40),
    st.text(max_size=20),
)


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    """An archive with a secret beside it, and a link in it that leads there."""
    yard = tmp_path_factory.mktemp("yard")
    archive = yard / "archive"
    for place, value in ((archive / "data", 7), (yard, 99), (yard / "data", 99)):
        for name in ("B04.tif", "secret.tif"):
            write_band(place / name, np.full((4, 4), value, "uint16"))
    (archive / "link").symlink_to(yard)
    return archive


def stays_inside(yard, href, where):
    try:
        found = resolve_href(href, str(yard / where), yard.resolve())
    except InputRefused:
        return
    if found is None:
        return
    assert isinstance(found, Path)
    # by its real place, links followed, as the system would open it
    assert Path(os.path.realpath(found)).is_relative_to(yard.resolve())


documents = st.sampled_from(["items.json", "data/item.json", "catalog.json"])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(href=hrefs, where=documents)
def test_hrefs_stay_in_the_archive_or_are_refused(yard, href, where):
    stays_inside(yard, href, where)


@pytest.mark.slow
@settings(max_examples=2000, deadline=None)
@given(href=hrefs, where=documents)
def test_two_thousand_hrefs_stay_in_the_archive_or_are_refused(yard, href, where):
    stays_inside(yard, href, where)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(href=hrefs)
def test_no_pixel_of_a_file_outside_is_read_through_an_item(yard, href):
    """The whole way: an item with such an asset either is refused or gives the archive's own pixels."""
    item = stac_item("S2A_18NXG_20230101_0_L2A", "2023-01-01T15:00:00Z", bands=("B04",))
    item["assets"]["red"]["href"] = href
    (yard / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    tiles, _ = search_tiles(yard)
    for tile in tiles:
        for file in tile.scenes[0].files.values():
            assert Path(os.path.realpath(file.path)).is_relative_to(yard.resolve())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(name=st.one_of(hrefs, st.text(max_size=30)))
def test_tile_ids_of_items_are_plain_names_or_refused(tmp_path_factory, name):
    root = tmp_path_factory.mktemp("ids")
    write_band(root / "B04.tif", np.full((4, 4), 7, "uint16"))
    item = stac_item("S", "2023-01-01T15:00:00Z", bands=("B04",), properties={"grid:code": f"MGRS-{name}"})
    (root / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
    tiles, refused = search_tiles(root)
    assert len(tiles) + len(refused) == 1
    for tile in tiles:
        assert set(tile.tile) <= set(string.ascii_letters + string.digits + "_.-")
        assert tile.tile not in (".", "..")


def urls(port):
    """Twenty kinds of address that a catalog may hold."""
    host = f"127.0.0.1:{port}"
    return [
        f"http://{host}/x.tif", f"https://{host}/x.tif", f"HTTP://{host}/x.tif", f"ftp://{host}/x.tif", f"//{host}/x.tif",
        f"/vsicurl/http://{host}/x.tif", f"/vsicurl?url=http%3A//{host}/x.tif", f"/vsicurl_streaming/http://{host}/x.tif",
        f"http://allowed.example@{host}/x.tif", f"http://{host}#@allowed.example/x.tif", f"http://localhost:{port}/x.tif",
        f"http://[::ffff:127.0.0.1]:{port}/x.tif", f"http://2130706433:{port}/x.tif", f"http://0x7f.1:{port}/x.tif",
        f"http://127.1:{port}/x.tif", f"http://allowed.example\\@{host}/x.tif", f"http://allowed.example.{host}/x.tif",
        f"gopher://{host}/x.tif", f"s3://{host}/x.tif", f"/vsis3/{host}/x.tif", f"/vsiwebhdfs/http://{host}/x.tif",
        f"vrt:///vsicurl/http://{host}/x.tif", f"dict://{host}/x.tif", f"jar:http://{host}/x.tif",
    ]  # fmt: skip


@pytest.fixture
def no_sockets(monkeypatch):
    """Any socket that Python opens is a failure; what GDAL opens by itself, the listener sees."""
    opened = []

    def refuse(self, address):
        opened.append(address)
        raise AssertionError(f"a socket to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **k: opened.append(a) or [])
    return opened


@pytest.mark.parametrize("hosts", [[], ["allowed.example"]])
def test_twenty_kinds_of_address_open_no_socket(tmp_path, listener, no_sockets, monkeypatch, hosts):
    port, calls = listener
    monkeypatch.setenv("AWS_S3_ENDPOINT", f"127.0.0.1:{port}")
    kinds = urls(port)
    assert len(kinds) >= 20
    root = tmp_path / "archive"
    for number, url in enumerate(kinds):
        item = stac_item(f"S2A_18NXG_2023010{number % 9 + 1}_0_L2A", "2023-01-01T15:00:00Z", bands=("B04", "SCL"))
        for asset in item["assets"].values():
            asset["href"] = url
        root.mkdir(exist_ok=True)
        (root / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": [item]}))
        with allow_net(hosts):
            tiles, refused = search_tiles(root)
        assert (tiles, len(refused)) == ([], 1), url
        catalog = {
            "type": "Catalog", "id": "c", "stac_version": "1.0.0", "description": "",
            "links": [{"rel": rel, "href": url} for rel in ("child", "item", "items", "root", "parent")],
        }  # fmt: skip
        (root / "items.json").unlink()
        (root / "catalog.json").write_text(json.dumps(catalog))
        with allow_net(hosts):
            try:
                tiles, refused = search_tiles(root)
            except GeococaError:
                tiles = []
        assert tiles == []
        (root / "catalog.json").unlink()
    assert calls == []
    assert no_sockets == []


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://data.example/x.tif", True), ("https://sub.data.example/x.tif", True), ("http://data.example:80/x.tif", True),
        ("https://evildata.example/x.tif", False), ("https://data.example.evil/x.tif", False),
        ("https://data.example@evil.example/x.tif", False), ("https://evil.example/data.example/x.tif", False),
        ("https://evil.example#data.example/x.tif", False), ("https://evil.example?data.example/x.tif", False),
        ("https://user:secret@data.example/x.tif", False), ("ftp://data.example/x.tif", False),
        ("https://data.example\\@evil.example/x.tif", False), ("https://data.example\n.evil/x.tif", False), ("https:///x.tif", False),
        ("https://data.example:99999/x.tif", False),
    ],
)  # fmt: skip
def test_only_the_very_host_is_allowed(url, allowed):
    with allow_net(["data.example"]):
        if allowed:
            assert check_address(url) == url
            assert remote_path(url) == f"/vsicurl/{url}"
        else:
            with pytest.raises(InputRefused):
                check_address(url)
            assert remote_path(url) is None
    with pytest.raises(InputRefused):
        check_address(url)


def test_an_allowance_ends_with_its_block():
    with pytest.raises(ZeroDivisionError), allow_net(["data.example"]):
        1 / 0  # noqa: B018
    assert remote_path("https://data.example/x.tif") is None
