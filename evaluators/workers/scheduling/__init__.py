"""Which worker gets which candidate: ``scheduler`` hands out, ``worker_set`` has the workers."""
