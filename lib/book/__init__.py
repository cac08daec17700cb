"""The book's machinery: checks, claims, explorers, figures. Knows no subject."""
