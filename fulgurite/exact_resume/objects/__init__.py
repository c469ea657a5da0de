"""Save and restore what objects hold: a walk over their attributes that keeps shared what is shared."""
