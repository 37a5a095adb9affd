"""Starting is cheap: nothing heavy is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("numba", "xarray", "pandas", "rasterio", "geopandas", "scipy", "sklearn", "matplotlib", "jinja2", "dask")


@pytest.mark.parametrize("statement", ["import geococa", "import geococa.cli"])
def test_nothing_heavy_is_imported_at_start(statement):
    code = f"{statement}; import sys; print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_loads_and_is_documented():
    import geococa

    for name in geococa.__all__:
        value = getattr(geococa, name)
        assert name == "__version__" or value.__doc__, f"geococa.{name} has no docstring"


def test_an_unknown_name_is_an_attribute_error():
    import geococa

    with pytest.raises(AttributeError, match="no attribute 'clasify'"):
        geococa.clasify  # noqa: B018
