"""First steps of ``benchmarks.gpu``: what the machine is, and what is searched there."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import time
from pathlib import Path

import yaml

from search.setup.demo_models.model_family import make_family

PACKAGES = ("torch", "transformers", "ray", "lm_eval", "optuna", "safetensors")
TRIALS = 12
"""Recipes of each search."""


def look(device: str) -> None:
    """Say what the machine is, and have a Ray worker see its device; each step before it begins."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:.1f} s: {text}", flush=True)

    say(", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES))
    say("importing torch")
    import torch

    say(f"{os.cpu_count()} cores, CUDA {torch.version.cuda}, {torch.cuda.device_count()} GPUs")
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        say(f"{torch.cuda.get_device_name()}: {free / 1e9:.1f} of {total / 1e9:.1f} GB free")
    import ray

    say("starting Ray")
    ray.init(include_dashboard=False, logging_level="WARNING")
    say(f"Ray has {ray.cluster_resources()}")

    @ray.remote(num_cpus=1, num_gpus=1 if device == "cuda" else 0)  # type: ignore[untyped-decorator]
    def seen() -> str:
        place = torch.ones(2, device=device)
        return f"a worker adds on {place.device}: {place.sum().item():.0f}"

    say(ray.get(seen.remote(), timeout=40))
    ray.shutdown()
    say("Ray has ended")


def prepare(folder: Path, device: str) -> None:
    """Train the demo's family and write two configs: one worker on the device, and two."""
    told: set[str] = set()

    def progress(what: str, share: float) -> None:
        line = f"{round(share, 1):4.0%} {what}"
        if line not in told:
            told.add(line)
            print(line, flush=True)

    family = make_family(folder, progress=progress)
    config = yaml.safe_load(family.config.read_text(encoding="utf-8"))
    config["search"] |= {"trials": TRIALS}
    for name, workers in (("one", 1), ("two", 2)):
        gpus = 1 / workers if device == "cuda" else 0
        config["workers"] = {"count": workers, "gpus": gpus, "cpus": 1, "device": device}
        written = family.config.with_name(f"{name}.yaml")
        written.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("device", choices=["cuda", "cpu"])
    parser.add_argument("--family", type=Path, help="folder to train it into")
    asked = parser.parse_args()
    if asked.family is None:
        look(asked.device)
    else:
        prepare(asked.family, asked.device)


if __name__ == "__main__":
    main()
