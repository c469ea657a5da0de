"""Checkpoint IO that survives a kill: atomic writes, manifests with sha256, verification, async saving."""
