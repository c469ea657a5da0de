"""How each kind of source is read; `sources.reader.open_reader` imports the one that an address names."""
