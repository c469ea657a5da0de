"""Single values and kinds of objects, and how each is saved and restored."""
