"""Data that needs no download: the standard library's text, digits, densities in the plane."""
