"""Greys of more than 8 bits to 0..255."""

from collections.abc import Sequence

import numpy as np

from fcn_jax.errors import UserError


def narrow(values: np.ndarray, name: str) -> np.ndarray:
    """Rounds values of 0..65535 to 0..255; raises UserError for others."""
    if values.min() < 0 or values.max() > 65535:
        raise UserError(
            f"{name} holds values from {values.min()} to {values.max()}; at most 0 to "
            "65535 (16 bits) can be read. Save it with 8 or 16 bits, or say in "
            "data.intensity_range which values become 0 and 255."
        )
    return ((values.astype(np.int64) + 128) // 257).astype(np.uint8)


def stretch(values: np.ndarray, ends: Sequence[float], name: str) -> np.ndarray:
    """Rounds values from the first to the second end to 0..255; clips the others.

    Raises:
        UserError: If a value is no number.
    """
    low, high = ends
    # Float32 is exact for 16 bits; integers of 32 bits become float64.
    scaled = (values.astype(np.result_type(values, np.float32)) - low) * (
        255 / (high - low)
    )
    if np.isnan(scaled).any():
        raise UserError(f"{name} holds values that are no numbers; save it without.")
    return np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)


def quantize(values: np.ndarray, name: str) -> np.ndarray:
    """Rounds values of 0..1 to 0..255; raises UserError for others."""
    if not (values.min() >= 0 and values.max() <= 1):  # Also if there is a NaN.
        raise UserError(
            f"{name} holds floats from {values.min()} to {values.max()}; floats must "
            "be in 0 to 1. Save it with 8 or 16 bits, or say in data.intensity_range "
            "which values become 0 and 255."
        )
    return np.rint(values * 255).astype(np.uint8)
