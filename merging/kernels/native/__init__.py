"""The passes in C++ (``cpp``): for a CPU in ``native_library``, for GPUs in ``gpu_passes``."""
