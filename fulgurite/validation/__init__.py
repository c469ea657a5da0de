"""Find every config error before torch is imported, and report all of them with file, line and suggestion."""
