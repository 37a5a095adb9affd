"""What commands share: paths, a classified map with its class codes, a table on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["PATH", "Command", "json_option", "known_output", "naming", "print_files", "print_table", "read_land_cover"]

PATH = click.Path(path_type=Path)

_GROUPS = {
    "Input": (
        "recipe", "model", "samples", "zones", "name", "layer", "classes", "nodata", "class_name", "class_column", "year", "labels",
        "arbiter", "pattern", "sensor", "collections", "bbox", "dates", "hosts", "archive", "value", "se", "zone", "by", "decimal",
    ),
    "Output": ("out", "folder", "path", "save", "overwrite", "as_json", "title", "language", "include_plots", "store"),
    "Running": ("workers", "threads", "dry_run", "scheduler", "memory", "help"),
}  # fmt: skip
"""Options by heading of the help text; the others say how the work is done."""


class Command(click.Command):
    """A command whose help groups its options: input, method, output, running."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        heading = {name: title for title, names in _GROUPS.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {"Input": [], "Method": [], "Output": [], "Running": []}
        for parameter in self.get_params(ctx):
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                helps = parameter is self.get_help_option(ctx)
                rows["Running" if helps else heading.get(parameter.name or "", "Method")].append(record)
        for title, records in rows.items():
            if records:
                with formatter.section(f"{title} options" if title != "Running" else "Other options"):
                    formatter.write_dl(records)


json_option = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
"""The option that every command has."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name before an error that does not say it."""
    from geococa.errors import GeococaError

    try:
        yield
    except GeococaError as error:
        raise error if str(path) in str(error) else type(error)(f"{path}: {error}") from None


def print_files(files: Iterable[Path], as_json: bool, *, text: str | None = None) -> None:
    """Print the files that a command wrote: as JSON, or one a line (or ``text`` for people)."""
    paths = [str(path) for path in files]
    if as_json:
        click.echo(json.dumps({"files": paths}, indent=2))
    else:
        click.echo("\n".join(paths) if text is None else text)


def known_output(out: Path) -> None:
    """Refuse a folder that is not the output folder of a run."""
    from geococa.errors import InputRefused
    from geococa.ledger import Ledger

    if not (out / Ledger.NAME).is_file():
        raise InputRefused(
            f"{out} is not the output folder of a run (it holds no {Ledger.NAME}); name the --out of 'geococa run'"
        )


def print_table(table: pd.DataFrame, as_json: bool, *, csv: bool = False) -> None:
    """Print a table on stdout: as JSON records, as CSV, or laid out to be read."""
    if as_json:
        click.echo(table.to_json(orient="records", indent=2, double_precision=10, date_format="iso"))
    elif csv:
        click.echo(table.to_csv(index=False), nl=False)
    else:
        click.echo(table.to_string(index=False) if len(table) else "nothing to show")


def read_land_cover(path: Path, classes: str | None, nodata: int | None) -> xr.DataArray:
    """Classified map of a file, uint8 with CF flags and 255 = no data; ``classes`` as ``1=coca,2=forest`` where it carries none."""
    from geococa.errors import InputRefused
    from geococa.legend import as_land_cover
    from geococa.tiles import read_raster

    raster = read_raster(path)
    if "band" in raster.dims:
        raise InputRefused(
            f"{path} has {raster.sizes['band']} bands, a classified map has one; take one out first, for example with "
            "gdal_translate -b 1"
        )
    if classes is None:
        if raster.attrs.get("kind") != "land_cover":
            raise InputRefused(f"{path} does not carry class names; name its codes with --classes 1=coca,2=forest,...")
        return raster
    try:
        pairs = [(int(code), name.strip()) for code, name in (part.split("=") for part in classes.split(","))]
    except ValueError:
        raise click.BadParameter(f"expected --classes 1=coca,2=forest,... got {classes!r}") from None
    if len({code for code, _ in pairs}) < len(pairs):
        raise click.BadParameter(f"each code once in --classes, got {classes!r}")
    try:
        raster = _whole_codes(raster, path, nodata)
        if any(not 0 <= code <= 254 for code, _ in pairs):
            return _renumbered(raster, dict(pairs), nodata)
        return as_land_cover(raster, dict(pairs), nodata=nodata)
    except InputRefused as error:
        raise error if str(path) in str(error) else InputRefused(f"{path}: {error}") from None


def _whole_codes(raster: xr.DataArray, path: Path, nodata: int | None) -> xr.DataArray:
    """Class codes stored as floats, as integers; what is NaN, or the file's own no-data value, becomes no data."""
    import numpy as np

    from geococa.errors import InputRefused

    if raster.dtype.kind != "f":
        return raster
    values = raster.values
    fills = [
        nodata,
        *(source.get(key) for source in (raster.attrs, raster.encoding) for key in ("_FillValue", "nodata")),
    ]
    seen = ~np.isnan(values) & ~np.isin(values, [fill for fill in fills if fill is not None])
    wrong = values[seen & ((values != np.rint(values)) | (np.abs(values) > 2**31 - 1))]
    if wrong.size:
        raise InputRefused(
            f"{path} holds {float(wrong[0]):g}, which is no class code; give a classified map, not an index or probabilities"
        )
    if not seen.all() and (values[seen] == 255).any():
        raise InputRefused(
            f"{path} has both missing cells and code 255, which means no data here; give the class another code"
        )
    plain = raster.copy(data=np.where(seen, values, 255).astype(np.int32))
    for source in (plain.attrs, plain.encoding):
        for key in ("_FillValue", "nodata"):
            source.pop(key, None)
    return plain


def _renumbered(raster: xr.DataArray, classes: dict[int, str], nodata: int | None) -> xr.DataArray:
    """Map whose codes don't fit into a byte, such as CORINE's 231 to 5143, with the codes 1, 2, 3, ... in their order."""
    import numpy as np

    from geococa.errors import InputRefused
    from geococa.legend import as_land_cover

    fills = [
        nodata,
        *(source.get(key) for source in (raster.attrs, raster.encoding) for key in ("_FillValue", "nodata")),
    ]
    missing = [int(fill) for fill in fills if fill is not None and fill == fill and int(fill) not in classes]
    if nodata in classes:
        raise InputRefused(f"nodata={nodata} is also the code of {classes[nodata]!r}; a code means either")
    # a file of floats has its missing cells at 255 by now
    codes = np.array(sorted(classes))
    values = raster.values
    place = np.minimum(np.searchsorted(codes, values), codes.size - 1)
    known, unseen = codes[place] == values, np.isin(values, [*missing, *([] if 255 in classes else [255])])
    if not (known | unseen).all():
        wrong = np.unique(values[~(known | unseen)])[:10].tolist()
        raise InputRefused(f"the labels hold {wrong}, which --classes does not name; name them, or give --nodata")
    small = raster.copy(data=np.where(unseen, 255, place + 1).astype(np.uint8))
    for source in (small.attrs, small.encoding):
        for key in ("_FillValue", "nodata"):
            source.pop(key, None)
    return as_land_cover(small, {number + 1: classes[int(code)] for number, code in enumerate(codes)}, nodata=255)
