"""Fully convolutional networks for semantic segmentation in JAX."""
