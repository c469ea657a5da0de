"""Nets of the gallery, one family per file. Each names its paper, its section of the book, its shapes and its size."""
