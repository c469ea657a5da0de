"""The ground: root, errors, logs, files. Imports nothing else of ours."""
