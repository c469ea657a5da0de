"""Private and version-dependent names of Hydra, Lightning, torchmetrics and torch, each used from here only.

None of them has a public counterpart in Lightning 2.6, torchmetrics 1.9 and torch 2.13. A test requires each name in
the installed versions. Lightning and torch are imported when a function is called: to import a module costs nothing.
"""
