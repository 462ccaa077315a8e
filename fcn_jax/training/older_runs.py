"""What checkpoints of older versions lack, and what it then was."""

import functools
from typing import Any

_CONFIG = {
    "task": "semantic",
    "thresholds": [0.5],
    "data.label_map": "",
    "data.intensity_range": [],
    "data.missing_masks": "",
    "loss.cross_entropy": 1.0,
    "loss.focal": 0.0,
    "loss.dice": 0.0,
    "loss.ohem": 0.0,
    "loss.focal_gamma": 2.0,
    "loss.ohem_fraction": 0.25,
}


def complete(metadata: dict[str, Any]) -> dict[str, Any]:
    """Adds to a checkpoint's metadata what was not saved before there was a choice.

    Raises:
        KeyError: what was always saved is missing.
    """
    metadata["class_names"], metadata["palette"]
    config = metadata["config"]
    for name, value in _CONFIG.items():
        *path, last = name.split(".")
        functools.reduce(dict.__getitem__, path, config).setdefault(last, value)
    model, data = config["model"], config["data"]
    return {
        "mean": model["mean"],
        "std": model["std"],
        "trained_on": [f"{data['name']}/{data['train_split']}"],
    } | metadata
