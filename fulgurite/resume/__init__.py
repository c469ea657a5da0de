"""`resume=`: find a run, plan what to restore, report what a changed config affects, and restore it."""
