"""Starting is cheap: nothing heavy is imported before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_no_public_function_bears_the_name_of_a_module():
    # once the module is imported, the package's attribute of that name is the module
    import geococa

    modules = {path.stem for path in Path(geococa.__file__).parent.glob("*.py")}
    assert not set(geococa._HOME) & modules
