"""Ranks of one run: launcher, rendezvous, shared start, process group."""
