"""How a run is followed and summed up: console, live view, status, callbacks, loggers."""
