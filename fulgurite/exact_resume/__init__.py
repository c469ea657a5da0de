"""Bit-identical resume: deterministic data order, scoped RNGs, saved loop state, uneven batches over ranks."""
