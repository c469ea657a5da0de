"""The code of this project: entry points, models, data and callbacks."""
