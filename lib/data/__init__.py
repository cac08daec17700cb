"""Data that needs no download: the standard library's text, digits, densities in the plane.

Modules with labelled spans: `nested_spans` (expressions of Python code), `authored_entities` (names
inside names, written for this book) and `ner_files` (readers of public formats).
"""
