"""Loaders that define their own order: their positions, and how a resumed run gets there."""
