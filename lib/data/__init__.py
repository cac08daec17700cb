"""Data that needs no download: text of the standard library."""
