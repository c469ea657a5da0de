"""Worked examples: the systems of *Dive into Deep Learning*. Deleting this folder leaves a working template."""
