"""Processes that form one run: launcher detection, rendezvous, shared start, process group."""
