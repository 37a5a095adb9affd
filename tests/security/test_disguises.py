"""Files that are not what their names say (threat 3), and names that are no files (threat 5)."""

from __future__ import annotations

import json
import shutil
import socket
import threading

import numpy as np
import pytest
from click.testing import CliRunner

from geococa import find_tiles, read_raster
from geococa.cli import main
from geococa.errors import InputRefused
from geococa.rasters import raster_file
from tests.scene_files import stac_item, write_band, write_scene


@pytest.fixture
def listener():
    """A host on loopback that counts who calls."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen()
    calls: list[object] = []

    def count():
        while True:
            try:
                connection, peer = server.accept()
            except OSError:
                return
            calls.append(peer)
            connection.close()

    threading.Thread(target=count, daemon=True).start()
    yield server.getsockname()[1], calls
    server.close()


def disguises(folder, port):
    """Text of files that GDAL opens by what is in them, whatever their names."""
    secret = folder / "secret.bin"
    secret.write_bytes(b"s" * 64)
    url = f"http://127.0.0.1:{port}/x.tif"
    raw = '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand"><SourceFilename>{0}</SourceFilename></VRTRasterBand>'
    plain = '<VRTRasterBand dataType="Byte" band="1"><SimpleSource><SourceFilename>{0}</SourceFilename></SimpleSource></VRTRasterBand>'
    code = (
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand"><PixelFunctionType>f</PixelFunctionType>'
        "<PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode>import pathlib;"
        f"pathlib.Path('{folder}/canary').touch()</PixelFunctionCode></VRTRasterBand>"
    )
    vrt = '<VRTDataset rasterXSize="8" rasterYSize="8">{0}</VRTDataset>'
    tiled = '<GDAL_WMS><Service name="TMS"><ServerUrl>{0}</ServerUrl></Service><DataWindow><SizeX>8</SizeX><SizeY>8</SizeY></DataWindow></GDAL_WMS>'
    return {
        "raw band of a secret": vrt.format(raw.format(secret)),
        "remote source": vrt.format(plain.format(f"/vsicurl/{url}")),
        "python": vrt.format(code),
        "warped": f'<VRTDataset subClass="VRTWarpedDataset"><GDALWarpOptions><SourceDataset>/vsicurl/{url}</SourceDataset></GDALWarpOptions></VRTDataset>',
        "blank before": "\n\n  " + vrt.format(plain.format(secret)),
        "byte order mark": "\ufeff" + vrt.format(plain.format(secret)),
        "tile service": tiled.format(url),
        "wcs": f"<WCS_GDAL><ServiceURL>{url}</ServiceURL><CoverageName>x</CoverageName></WCS_GDAL>",
        "wmts": f"<GDAL_WMTS><GetCapabilitiesUrl>{url}</GetCapabilitiesUrl></GDAL_WMTS>",
        "stac tiles": json.dumps({"stac_version": "1.0.0", "type": "Feature", "assets": {"a": {"href": url}}}),
        "netcdf": "CDF\x01" + "\0" * 64,
        "page": f'<html><img src="{url}"></html>',
    }


@pytest.mark.parametrize("suffix", [".tif", ".jp2"])
def test_twelve_disguises_are_refused_and_call_nobody(tmp_path, listener, suffix, monkeypatch):
    monkeypatch.setenv("GDAL_VRT_ENABLE_PYTHON", "YES")
    port, calls = listener
    found = disguises(tmp_path, port)
    assert len(found) == 12
    for name, text in found.items():
        path = tmp_path / f"map{suffix}"
        path.write_bytes(text.encode())
        with pytest.raises(InputRefused, match="neither TIFF nor JPEG 2000"):
            read_raster(path)
        shutil.rmtree(tmp_path / "archive", ignore_errors=True)
        folder = write_scene(tmp_path / "archive" / "T", "S2A_X", "2023-06-25T15:00:00Z")
        (folder / "B04.tif").write_bytes(text.encode())
        with pytest.raises(InputRefused, match="neither TIFF nor JPEG 2000"):
            find_tiles(tmp_path / "archive")
        assert calls == [], name
        assert not (tmp_path / "canary").exists(), name


def test_a_disguise_in_a_tar_file_is_refused(tmp_path, listener):
    import tarfile

    from tests.scene_files import write_bundle

    folder = write_bundle(tmp_path / "loose", suffix="json")
    port, calls = listener
    for name, text in disguises(tmp_path, port).items():
        victim = next(folder.glob("*SR_B4.TIF"))
        victim.write_bytes(text.encode())
        product = next(folder.glob("*_MTL.json")).name.removesuffix("_MTL.json")
        with tarfile.open(tmp_path / f"{product}.tar", "w") as archive:
            for file in sorted(folder.iterdir()):
                archive.add(file, arcname=file.name)
        with pytest.raises(InputRefused, match="neither TIFF nor JPEG 2000"):
            find_tiles(tmp_path / f"{product}.tar")
        assert calls == [], name


ODD = [
    "", " ", "\0", "a\0.tif", "<VRTDataset/>", "  <VRTDataset/>", "\n<GDAL_WMS/>", "vrt://x.tif", "vrt:///etc/passwd?bands=1",
    "http://127.0.0.1:{port}/x.tif", "https://127.0.0.1:{port}/x.tif", "HTTP://127.0.0.1:{port}/x.tif",
    "ftp://127.0.0.1:{port}/x.tif", "s3://bucket/x.tif", "gs://bucket/x.tif", "az://c/x.tif", "file:///etc/passwd",
    "/vsicurl/http://127.0.0.1:{port}/x.tif", "/vsicurl_streaming/http://127.0.0.1:{port}/x.tif",
    "/vsicurl?url=http://127.0.0.1:{port}/x.tif", "/vsis3/bucket/x.tif", "/vsigs/b/x.tif", "/vsiaz/c/x.tif", "/vsiadls/c/x.tif",
    "/vsioss/b/x.tif", "/vsiswift/b/x.tif", "/vsihdfs/h/x.tif", "/vsiwebhdfs/http://127.0.0.1:{port}/x.tif", "/vsizip/a.zip/x.tif",
    "/vsitar/a.tar/x.tif", "/vsigzip/a.gz", "/vsimem/x.tif", "/vsistdin/", "/vsisubfile/0_100,/etc/passwd",
    "/vsisparse/x.xml", "/vsicrypt/key=a,file=x", "GTIFF_DIR:1:x.tif", "MEM:::DATAPOINTER=1,PIXELS=8,LINES=8", "NETCDF:x.nc:v",
    "HDF5:x.h5://v", "/dev/null", "/dev/zero", "/proc/self/environ", "/", ".", "no_such_file.tif",
]  # fmt: skip


def test_forty_odd_names_are_refused_with_exit_code_4_and_call_nobody(tmp_path, listener):
    port, calls = listener
    zones = tmp_path / "zones.gpkg"
    zones.write_bytes(b"")
    assert len(ODD) >= 40
    for text in ODD:
        name = text.format(port=port)
        with pytest.raises(InputRefused):
            raster_file(name)
        if "\0" not in name:
            with pytest.raises(InputRefused):
                find_tiles(name) if name not in (".", "/") else read_raster(name)
        if name.strip() and "\0" not in name:
            done = CliRunner().invoke(main, ["areas", name, "--zones", str(zones), "--classes", "1=coca"])
            assert done.exit_code == 4, (name, done.output)
    assert calls == []


def test_a_named_pipe_is_no_raster_and_does_not_hang(tmp_path):
    import os

    path = tmp_path / "pipe.tif"
    os.mkfifo(path)
    with pytest.raises(InputRefused, match="not a regular file"):
        read_raster(path)


def test_what_is_a_raster_still_opens(tmp_path):
    values = np.arange(64, dtype="uint8").reshape(8, 8)
    assert (read_raster(write_band(tmp_path / "no name at all", values)).values == values).all()
    assert stac_item("S", "2023-01-01T00:00:00Z")["type"] == "Feature"
