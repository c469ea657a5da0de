"""Data modules, one file per family of data sets."""
