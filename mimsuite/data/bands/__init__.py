"""Rasters of many bands, such as satellite scenes: GeoTIFF files and time series of them."""
