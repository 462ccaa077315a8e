"""Scoring checkpoints and predicting masks."""
