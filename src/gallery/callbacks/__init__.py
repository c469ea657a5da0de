"""Callbacks of the gallery: pictures and texts in the run directory."""
