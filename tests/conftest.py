"""Set-up shared by all tests: no network, few threads."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
    RAY_worker_niceness="0",
    RAY_USAGE_STATS_ENABLED="0",
)
os.environ.setdefault("OMP_NUM_THREADS", "1")
