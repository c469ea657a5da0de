"""`validate=deep`: one batch through each loop of a run before it starts, with objects of its own."""
