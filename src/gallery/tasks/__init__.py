"""LightningModules of the gallery, one per kind of task."""
