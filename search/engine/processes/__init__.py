"""The driver's process, its signals, and the workers and models that it starts with."""
