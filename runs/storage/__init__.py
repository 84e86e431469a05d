"""study.db: ``store`` is the way in; the other modules are its tables, rows and transactions."""
