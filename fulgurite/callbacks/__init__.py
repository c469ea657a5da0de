"""Callbacks for any Lightning project, one a file."""
