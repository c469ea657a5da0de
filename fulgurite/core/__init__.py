"""Ground level: errors, files, download, logging, redaction. Imports no torch and nothing else of this library."""
