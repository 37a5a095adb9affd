"""Pure loops on numpy arrays, compiled by numba; nothing here knows xarray, rasterio or shapely."""
