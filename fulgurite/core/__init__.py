"""Base level: errors, files, downloads, logging, formatting. Imports neither torch nor other packages."""
