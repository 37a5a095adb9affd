"""One flipped bit in an input, in any codec, is found where a checksum is stated or was recorded (threat 18)."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from geococa import find_tiles
from geococa.errors import InputRefused
from geococa.input_records import check_inputs, record_inputs
from geococa.stated_checksums import check_stated
from geococa.tile_inputs import tile_digests
from tests.scene_files import stac_item, write_band, write_safe

CODECS = {
    "uncompressed": {}, "LZW": {"compress": "LZW"}, "DEFLATE": {"compress": "DEFLATE"}, "ZSTD": {"compress": "ZSTD"},
    "LERC_DEFLATE": {"compress": "LERC_DEFLATE"},
}  # fmt: skip


def scene(root, codec, *, state=True):
    rng = np.random.default_rng(11)
    folder = root / "T" / "S2A_X"
    item = stac_item("S2A_X", "2023-06-25T15:00:00Z", bands=("B04", "B08"))
    for key, band in (("red", "B04"), ("nir", "B08")):
        path = write_band(folder / f"{band}.tif", rng.integers(1, 4000, (64, 64)).astype("uint16"), **CODECS[codec])
        if state:
            item["assets"][key]["file:checksum"] = "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "item.json").write_text(json.dumps(item))
    return folder


@pytest.mark.parametrize("codec", CODECS)
def test_a_hundred_flips_are_found_by_the_stated_checksum_and_by_the_record(tmp_path, codec):
    """Five codecs of 100 flips: 500, each found twice."""
    folder = scene(tmp_path, codec)
    (tile,) = find_tiles(tmp_path)
    assert check_stated(tile) == 2
    record = record_inputs(tile, tile_digests(tile, None))
    path = folder / "B08.tif"
    whole = path.read_bytes()
    rng = np.random.default_rng(sum(codec.encode()))
    stated = recorded = 0
    for place in rng.integers(0, 8 * len(whole), 100):
        data = bytearray(whole)
        data[place // 8] ^= 1 << (place % 8)
        path.write_bytes(data)
        try:
            check_stated(tile)
        except InputRefused as error:
            stated += "B08.tif: its sha256 is" in str(error)
        status = {name: state for _, _, name, state in check_inputs(record, tmp_path)}
        recorded += status.pop("S2A_X/B08.tif") == "changed"
        assert set(status.values()) == {"ok"}
    assert (stated, recorded) == (100, 100)


def test_without_a_checksum_nothing_is_held_and_the_record_still_is(tmp_path):
    folder = scene(tmp_path, "LZW", state=False)
    (tile,) = find_tiles(tmp_path)
    assert check_stated(tile) == 0
    record = record_inputs(tile, tile_digests(tile, None))
    (folder / "B04.tif").unlink()
    assert {name: state for _, _, name, state in check_inputs(record, tmp_path)}["S2A_X/B04.tif"] == "missing"


@pytest.mark.parametrize("algorithm", ["MD5", "SHA3-256"])
def test_the_manifest_of_a_safe_product_is_held(tmp_path, algorithm):
    folder, _ = write_safe(tmp_path / "T")
    entries = []
    for path in sorted(folder.rglob("*.jp2")):
        digest = hashlib.new({"MD5": "md5", "SHA3-256": "sha3_256"}[algorithm], path.read_bytes()).hexdigest()
        href = f"./{path.relative_to(folder).as_posix()}"
        entries.append(
            f'<dataObject><byteStream size="1"><fileLocation locatorType="URL" href="{href}"/>'
            f'<checksum checksumName="{algorithm}">{digest.upper() if algorithm == "MD5" else digest}</checksum></byteStream></dataObject>'
        )
    text = f'<xfdu:XFDU xmlns:xfdu="urn:ccsds:schema:xfdu:1"><dataObjectSection>{"".join(entries)}</dataObjectSection></xfdu:XFDU>'
    (folder / "manifest.safe").write_text(text)
    (tile,) = find_tiles(tmp_path)
    assert check_stated(tile) == len(tile.scenes[0].files)
    victim = tile.scenes[0].files["red"].source
    data = bytearray(victim.read_bytes())
    data[-5] ^= 4
    victim.write_bytes(data)
    with pytest.raises(InputRefused, match=r"B04_10m\.jp2: its .* manifest\.safe states"):
        check_stated(tile)
