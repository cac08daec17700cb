"""The package beneath the book: one module or small package per subject."""
