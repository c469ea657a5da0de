"""Data modules of the gallery, one family per file."""
