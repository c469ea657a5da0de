"""Rank info and network checks, before and after a process group exists."""
