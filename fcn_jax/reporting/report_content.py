"""What a report is made of."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """What a report is made of.

    Attributes:
        title: of the page, such as the name of the run.
        split: that was scored.
        checkpoint: step, or name of the weights.
        class_names: C names.
        palette: uint8 [256,3], RGB of each class id.
        scores: see ``Task.scores``, and ``boundary.Counter.scores``.
        counts: int64 [C,C], the confusion matrix with rows of truth; or for many
            labels a pixel [C,2,100], see ``metrics.histogram``.
        mean_ious: of single images.
        best: the best images, see ``collector.Shown``, ...
        worst: ... and the worst.
        metrics: the lines of the run's ``metrics.jsonl``.
        config: settings by dotted name.
        provenance: further facts by name.
    """

    title: str
    split: str
    checkpoint: str
    class_names: Sequence[str]
    palette: np.ndarray
    scores: Mapping[str, Any]
    counts: np.ndarray
    mean_ious: Sequence[float]
    best: Sequence
    worst: Sequence
    metrics: Sequence[Mapping[str, Any]]
    config: Mapping[str, Any]
    provenance: Mapping[str, str]

    @property
    def multilabel(self) -> bool:
        """Whether a pixel may be of several classes."""
        return self.counts.ndim == 3
