"""Every way in which archives come: tar files, STAC catalogs, collections and tables, Zarr stores, hosts that are allowed."""

from __future__ import annotations

import functools
import http.server
import io
import json
import shutil
import tarfile
import threading

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner

from geococa import find_tiles, open_tile
from geococa.cli import main
from geococa.errors import InputRefused
from geococa.network import allow_net
from geococa.tile_inputs import tile_digests, tile_fingerprint
from geococa.tile_search import search_tiles
from tests.scene_files import write_band, write_bundle, write_scene

DAYS = {"18NXG": ["2021-01-05", "2021-06-05"], "18NXH": ["2021-01-05"]}


@pytest.fixture
def products(tmp_path):
    """Scene folders as they are downloaded, apart from any tile folder: archive/data/SCENE."""
    root = tmp_path / "archive"
    for tile, days in DAYS.items():
        for n, day in enumerate(days):
            name = f"S2A_MSIL2A_{day.replace('-', '')}T150000_N0509_R001_T{tile}_{day.replace('-', '')}T190000"
            write_scene(root / "data", name, f"{day}T15:00:00Z", red=1500 + 100 * n)
    return root


def items_of(root):
    return {path.parent: json.loads(path.read_text()) for path in sorted(root.glob("data/*/item.json"))}


def absolute_assets(items, root):
    """Items with assets given from the archive's folder."""
    out = []
    for folder, item in items.items():
        for asset in item["assets"].values():
            asset["href"] = f"./{folder.relative_to(root).as_posix()}/{asset['href'][2:]}"
        out.append(item)
    return out


def write_catalog(root):
    """A self-contained catalog with a collection and items in folders of their own, as pystac saves one."""
    pystac = pytest.importorskip("pystac")
    catalog = pystac.Catalog("archive", "An archive")
    extent = pystac.Extent(pystac.SpatialExtent([[-75, 2, -74, 3]]), pystac.TemporalExtent([[None, None]]))
    collection = pystac.Collection("s2", "Scenes", extent)
    catalog.add_child(collection)
    for folder, item in items_of(root).items():
        whole = item | {"geometry": None, "bbox": None, "links": [], "stac_extensions": []}
        whole.pop("bbox")
        made = pystac.Item.from_dict(whole)
        for key, asset in made.assets.items():
            asset.href = str((folder / item["assets"][key]["href"]).resolve())
        collection.add_item(made)
    catalog.normalize_hrefs(str(root))
    catalog.make_all_asset_hrefs_relative()
    catalog.save(pystac.CatalogType.SELF_CONTAINED)
    return root / "catalog.json"


def check_products(tiles):
    assert [(tile.tile, len(tile.scenes)) for tile in tiles] == [("18NXG", 2), ("18NXH", 1)]
    scenes = open_tile(tiles[0], bands=["red", "nir", "swir16"])
    assert scenes.red.values[:, 3, 3].tolist() == [1500, 1600]
    assert scenes.swir16.shape == (2, 20, 20)
    assert set(scenes.offset.values.ravel()) == {-0.1}
    assert scenes.time.dt.strftime("%Y-%m-%d").values.tolist() == DAYS["18NXG"]


def test_a_static_catalog_gives_tiles_by_their_mgrs_square(products):
    check_products(find_tiles(write_catalog(products)))
    # the folder with the catalog at its top is the same archive
    check_products(find_tiles(products))
    assert [tile.tile for tile in find_tiles(products, pattern="*H")] == ["18NXH"]


def test_an_item_collection_and_a_geoparquet_table_give_the_same_tiles(products):
    items = absolute_assets(items_of(products), products)
    path = products / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    check_products(find_tiles(path))
    path.unlink()
    write_table(items, products / "table.parquet")
    check_products(find_tiles(products / "table.parquet"))


def write_table(items, path):
    """Items as the STAC GeoParquet specification lays them out: properties as columns, times as timestamps."""
    import pyarrow as pa
    import shapely
    from pyarrow import parquet

    rows = []
    for item in items:
        row = {key: item[key] for key in ("type", "stac_version", "id", "assets")}
        row["geometry"] = shapely.to_wkb(shapely.box(-75, 2, -74, 3))
        row |= {key: value for key, value in item["properties"].items() if key != "datetime"}
        row["datetime"] = np.datetime64(item["properties"]["datetime"].rstrip("Z"), "us").astype(object)
        rows.append(row)
    table = pa.Table.from_pylist(rows)
    place = table.schema.get_field_index("datetime")
    table = table.set_column(place, "datetime", table["datetime"].cast(pa.timestamp("us", "UTC")))
    parquet.write_table(table, path)


def test_real_items_are_sorted_into_tiles(shared_data, tmp_path):
    """Items as catalogs publish them, with their files beside them under the names of the addresses."""
    root = tmp_path / "archive"
    root.mkdir()
    features, wanted = [], {"MGRS-01WCP": "01WCP", "MGRS-07HFE": "07HFE", None: "008059"}
    for name in ("s2_N0509_item", "s2_N0212_item", "lc08_008059_20191201_SR_item"):
        item = json.loads((shared_data / "stac" / f"{name}.json").read_text())
        features.append(item)
        for key in ("red", "nir", "scl", "SR_B4.TIF", "SR_B5.TIF", "QA_PIXEL.TIF"):
            href = item["assets"].get(key, {}).get("href", "")
            path = root / (href.rsplit("/", 1)[-1] if "://" in href else href)
            gsd = {"red": 10, "nir": 10, "scl": 20}.get(key, 30)
            if href and not path.exists():
                lossless = (
                    {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES"} if path.suffix == ".jp2" else {}
                )
                write_band(
                    path, np.full((240 // gsd,) * 2, 7, "uint8" if key == "scl" else "uint16"), gsd=gsd, **lossless
                )
    (root / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    tiles = find_tiles(root)
    assert [tile.tile for tile in tiles] == sorted(wanted.values())
    assert {tile.sensor for tile in tiles} == {"sentinel-2-l2a", "landsat-c2-l2"}
    assert {item["properties"].get("grid:code") for item in features} == set(wanted)


def test_catalogs_that_point_in_circles_come_to_an_end(products):
    path = write_catalog(products)
    found = json.loads(path.read_text())
    found["links"] += [
        {"rel": "child", "href": "./catalog.json"},
        {"rel": "child", "href": "./s2/../catalog.json"},
        {"rel": "item"},
        "nothing",
        {"rel": "child", "href": 7},
    ]
    path.write_text(json.dumps(found))
    check_products(find_tiles(products))


def test_one_bad_item_refuses_its_tile_and_leaves_the_others(products):
    items = absolute_assets(items_of(products), products)
    items[0]["assets"]["red"]["href"] = "../../outside.tif"
    (products / "items.json").write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    tiles, refused = search_tiles(products)
    assert [tile.tile for tile in tiles] == ["18NXH"]
    assert list(refused) == ["18NXG"]
    assert "leads outside the archive" in str(refused["18NXG"])
    with pytest.raises(InputRefused, match="leads outside the archive"):
        find_tiles(products)


# --- tar files ---------------------------------------------------------------------------------------


def pack(folder, target, *, mode="w", names=None):
    with tarfile.open(target, mode) as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, arcname=(names or {}).get(file.name, file.name))
    return target


def test_a_landsat_tar_gives_what_its_folder_gives_and_writes_nothing(tmp_path):
    folder = write_bundle(tmp_path / "loose", suffix="json")
    archive = tmp_path / "archive"
    (archive / "T").mkdir(parents=True)
    product = next(folder.glob("*_MTL.json")).name.removesuffix("_MTL.json")
    pack(folder, archive / "T" / f"{product}.tar")
    before = sorted(tmp_path.rglob("*"))
    (tile,) = find_tiles(archive)
    assert tile.tile == "T"
    packed, loose = open_tile(tile), open_tile(folder)
    xr.testing.assert_identical(packed.drop_attrs(), loose.drop_attrs())
    assert sorted(tmp_path.rglob("*")) == before
    assert open_tile(tile, chunks={}).compute().equals(packed)
    # the tar file is the input, as a whole
    assert {file.path.name for file in tile_digests(tile, None)} == {f"{product}.tar"}
    assert tile_fingerprint(tile)


def test_tar_files_at_the_top_are_sorted_by_path_and_row(tmp_path):
    archive = tmp_path / "archive"
    archive.mkdir()
    for product in ("LC08_L2SP_008059_20191201_20200825_02_T1", "LC08_L2SP_007058_20191201_20200825_02_T1"):
        pack(write_bundle(tmp_path / product, product, suffix="txt"), archive / f"{product}.tar")
    assert [tile.tile for tile in find_tiles(archive)] == ["007058", "008059"]


@pytest.mark.parametrize("kind", ["gz", "cut", "upward", "absolute", "no_mtl", "two", "not_tar", "link"])
def test_tar_files_that_are_not_as_delivered_are_refused_by_name(tmp_path, kind):
    folder = write_bundle(tmp_path / "loose", suffix="json")
    product = next(folder.glob("*_MTL.json")).name.removesuffix("_MTL.json")
    path = tmp_path / "archive" / f"{product}.tar{'.gz' if kind == 'gz' else ''}"
    path.parent.mkdir()
    first = sorted(folder.iterdir())[0].name
    names = {"upward": {first: f"../../{first}"}, "absolute": {first: f"/{first}"}}.get(kind)
    if kind == "no_mtl":
        (folder / f"{product}_MTL.json").unlink()
    if kind == "two":
        for file in list(folder.iterdir()):
            shutil.copy(file, folder / file.name.replace("008059", "008060"))
    pack(folder, path, mode="w:gz" if kind == "gz" else "w", names=names)
    if kind == "absolute":  # tarfile takes a leading slash off
        data = path.read_bytes()
        at = data.index(first.encode())
        head = bytearray(data[at : at + 512])
        head[:100] = b"/" + bytes(head[:99])
        head[148:156] = b"        "
        head[148:156] = f"{sum(head):06o}\0 ".encode()
        path.write_bytes(data[:at] + bytes(head) + data[at + 512 :])
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-12000])
    if kind == "not_tar":
        path.write_bytes(b"<html>not found</html>" * 100)
    if kind == "link":
        with tarfile.open(path, "w") as archive:
            for file in sorted(folder.iterdir()):
                member = tarfile.TarInfo(file.name)
                if file.suffix == ".TIF":
                    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
                    archive.addfile(member)
                else:
                    data = file.read_bytes()
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
    with pytest.raises(InputRefused, match=product):
        find_tiles(path)


# --- Zarr --------------------------------------------------------------------------------------------


def cube(sensor_scale=True):
    from geococa import Grid

    grid = Grid("EPSG:32618", (10, 0, 600000, 0, -10, 300000), (30, 40))
    rng = np.random.default_rng(3)
    times = np.array(["2020-02-01", "2021-02-01T15:00"], "datetime64[ns]")
    variables = {
        name: (("time", "y", "x"), rng.integers(1, 5000, (2, 30, 40)).astype("uint16"), {"_FillValue": 0})
        for name in ("red", "nir", "swir16")
    }
    variables["scl"] = (("time", "y", "x"), rng.integers(4, 10, (2, 30, 40)).astype("uint8"), {})
    coords = {"time": times, **grid.coordinates()}
    return xr.Dataset(variables, coords=coords)


@pytest.mark.parametrize("version", [2, 3])
def test_a_zarr_store_opens_as_a_tile(tmp_path, version):
    pytest.importorskip("zarr")
    data = cube()
    for name in ("red", "nir", "swir16"):
        data[name].attrs.pop("_FillValue")
        data[name].encoding = {"_FillValue": 0, "chunks": (1, 16, 16)}
    store = tmp_path / "archive" / "18NXG.zarr"
    data.to_zarr(store, zarr_format=version, consolidated=version == 2)
    (tile,) = find_tiles(tmp_path / "archive", sensor="sentinel-2-l2a")
    assert (tile.tile, tile.years, tile.grid.shape) == ("18NXG", (2020, 2021), (30, 40))
    scenes = open_tile(tile, window=(3, 20, 5, 33))
    np.testing.assert_array_equal(scenes.red, data.red[:, 3:20, 5:33])
    np.testing.assert_array_equal(scenes.scl, data.scl[:, 3:20, 5:33])
    np.testing.assert_array_equal(scenes.time, data.time)
    lazy = open_tile(tile, chunks={"y": 7, "x": 9}, window=(3, 20, 5, 33))
    xr.testing.assert_identical(lazy.compute(), scenes)
    assert find_tiles(store, sensor="sentinel-2-l2a")[0].tile == "18NXG"
    assert len(tile_digests(tile, ["red"])) > 3, "the chunks are the inputs"


@pytest.mark.parametrize("damage", ["pickle", "object", "codec", "no_crs", "uneven", "chunk", "no_time", "huge_chunk"])
def test_zarr_stores_that_run_things_or_lack_things_are_refused(tmp_path, damage):
    pytest.importorskip("zarr")
    data = cube()
    for name in ("red", "nir", "swir16"):
        data[name].attrs.pop("_FillValue")
    if damage == "uneven":
        data["x"] = data["x"].values + np.where(np.arange(40) > 20, 3.0, 0.0)
    if damage == "no_crs":
        data = data.drop_vars("spatial_ref")
    if damage == "no_time":
        data = data.isel(time=0, drop=True)
    store = tmp_path / "18NXG.zarr"
    data.to_zarr(store, zarr_format=2, consolidated=False)
    path = store / "red" / ".zarray"
    meta = json.loads(path.read_text())
    if damage == "pickle":
        meta["filters"] = [{"id": "pickle", "protocol": 5}]
    elif damage == "object":
        meta["dtype"] = "|O"
    elif damage == "codec":
        meta["compressor"] = {"id": "somebodys_codec"}
    elif damage == "huge_chunk":
        meta["chunks"] = [1, 1_000_000, 1_000_000]
    path.write_text(json.dumps(meta))
    with pytest.raises(InputRefused, match=r"18NXG\.zarr"):  # noqa: PT012
        (tile,) = find_tiles(tmp_path, sensor="sentinel-2-l2a")
        for chunk in (store / "red").glob("[0-9]*"):
            chunk.write_bytes(b"damaged")
        open_tile(tile)


# --- hosts that are allowed --------------------------------------------------------------------------


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder with ranges, as an object store serves them; `/away/` redirects to another host."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/away/"):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.other}{self.path[5:]}")
            self.end_headers()
            return
        super().do_GET()

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def send_head(self):
        from pathlib import Path

        path = Path(self.translate_path(self.path.split("?")[0]))
        if not path.is_file():
            self.send_error(404)
            return None
        data = path.read_bytes()
        kind = "application/json" if path.suffix in (".json", "") else "image/tiff"
        wanted = self.headers.get("Range")
        start, stop = 0, len(data)
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        return io.BytesIO(data[start:stop])


@pytest.fixture
def serve():
    servers = []

    def start(folder, other=0):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        server.asked, server.other = [], other
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_files_of_items_are_read_from_an_allowed_host_and_only_then(products, tmp_path, serve):
    server = serve(products)
    base = f"http://127.0.0.1:{server.server_port}"
    items = absolute_assets(items_of(products), products)
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = base + asset["href"][1:]
    path = tmp_path / "elsewhere" / "items.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    with pytest.raises(InputRefused, match="no band"):
        find_tiles(path)
    assert server.asked == []
    check_products(find_tiles(path, allow_net=["127.0.0.1"]))
    assert server.asked
    # another port of that host is another matter
    count = len(server.asked)
    with pytest.raises(InputRefused, match="no band"):
        find_tiles(path, allow_net=["127.0.0.1:9"])
    assert len(server.asked) == count


def test_a_bucket_is_read_through_its_allowed_endpoint_and_only_then(products, tmp_path, serve, monkeypatch):
    bucket = tmp_path / "store"
    shutil.copytree(products, bucket / "bucket")
    server = serve(bucket)
    for name, value in {
        "AWS_S3_ENDPOINT": f"127.0.0.1:{server.server_port}", "AWS_HTTPS": "NO", "AWS_VIRTUAL_HOSTING": "FALSE",
        "AWS_NO_SIGN_REQUEST": "YES", "CPL_GS_ENDPOINT": f"http://127.0.0.1:{server.server_port}/",
        "GS_NO_SIGN_REQUEST": "YES",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    items = absolute_assets(items_of(products), products)
    for start in ("s3://bucket", "/vsis3/bucket", "gs://bucket"):
        moved = json.loads(json.dumps(items))
        for item in moved:
            for asset in item["assets"].values():
                asset["href"] = start + asset["href"][1:]
        path = tmp_path / "items.json"
        path.write_text(json.dumps({"type": "FeatureCollection", "features": moved}))
        asked = len(server.asked)
        with pytest.raises(InputRefused, match="no band"):
            find_tiles(path)
        assert len(server.asked) == asked
        check_products(find_tiles(path, allow_net=["127.0.0.1"]))


def api(folder, products, base):
    """A STAC API of files: a landing page that conforms, and a search with one page."""
    pages = {
        "api": {
            "type": "Catalog", "id": "api", "stac_version": "1.0.0", "description": "An API", "title": "API",
            "conformsTo": ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"],
            "links": [
                {"rel": "root", "href": f"{base}/api"}, {"rel": "self", "href": f"{base}/api"},
                {"rel": "search", "href": f"{base}/search", "type": "application/geo+json", "method": "GET"},
            ],
        },
        "search": {"type": "FeatureCollection", "features": absolute_assets(items_of(products), products), "links": []},
    }  # fmt: skip
    folder.mkdir()
    for name, page in pages.items():
        (folder / name).write_text(json.dumps(page))
    return folder


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_search_is_saved_as_items_and_refused_without_its_host(products, tmp_path, serve):
    pytest.importorskip("pystac_client")
    folder = tmp_path / "web"
    server = serve(folder)
    base = f"http://127.0.0.1:{server.server_port}"
    api(folder, products, base)
    call = CliRunner()
    arguments = ["find", f"{base}/api", "--collection", "s2", "--save", str(products / "items.json")]
    done = call.invoke(main, arguments)
    assert done.exit_code == 4
    assert "--allow-net 127.0.0.1" in done.stderr
    assert server.asked == []
    done = call.invoke(main, [*arguments, "--allow-net", "127.0.0.1", "--json"])
    assert done.exit_code == 0, done.stderr
    assert [row["tile"] for row in json.loads(done.stdout)] == ["18NXG", "18NXH"]
    check_products(find_tiles(products))
    # an allowed host that sends us on to another is not followed
    other = serve(folder)
    server.other = other.server_port
    done = call.invoke(
        main,
        ["find", f"{base}/away/api", "--collection", "s2", "--save", str(tmp_path / "x.json"),
         "--allow-net", f"127.0.0.1:{server.server_port}"],
    )  # fmt: skip
    assert done.exit_code == 4
    assert other.asked == []
    assert not (tmp_path / "x.json").exists()


def test_names_of_hosts_are_checked(products):
    for name in ("", "http://x", "a b", "*", "x/y", "-x"):
        with pytest.raises(InputRefused, match="not the name of a host"), allow_net([name]):
            pass


def test_find_lists_a_folder(products, tmp_path):
    shutil.copytree(products / "data", tmp_path / "tiles" / "18NXG", ignore=shutil.ignore_patterns("*18NXH*"))
    done = CliRunner().invoke(main, ["find", str(tmp_path / "tiles"), "--json"])
    assert json.loads(done.stdout)[0] | {"crs": ""} == {
        "tile": "18NXG", "sensor": "sentinel-2-l2a", "crs": "", "rows": 20, "columns": 20, "scenes": 2, "years": "2021-2021",
    }  # fmt: skip


def test_a_host_allowed_for_a_command_is_allowed_within_it_and_not_after(products, tmp_path, serve):
    server = serve(products)
    items = absolute_assets(items_of(products), products)
    for item in items:
        for asset in item["assets"].values():
            asset["href"] = f"http://127.0.0.1:{server.server_port}{asset['href'][1:]}"
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": items}))
    call = CliRunner()
    assert call.invoke(main, ["find", str(path)]).exit_code == 4
    assert server.asked == []
    done = call.invoke(main, ["--allow-net", "127.0.0.1", "find", str(path), "--json"])
    assert done.exit_code == 0, done.stderr
    assert len(json.loads(done.stdout)) == 2
    assert call.invoke(main, ["find", str(path)]).exit_code == 4
