"""The passes in C++ (``cpp``): compiled once on a machine, loaded by ``native_library``."""
