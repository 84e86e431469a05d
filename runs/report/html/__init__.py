"""The report as one HTML page: figures, tables and the recipes, with nothing outside the file."""
