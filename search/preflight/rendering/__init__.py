"""A pre-flight shown: tables in a terminal, an HTML page, heat maps."""
