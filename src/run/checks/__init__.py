"""How a config is found right without importing what it names; `run/validate.py` and `run/composition.py` use it."""
