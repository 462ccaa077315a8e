"""Data sets as TFDS builders, image transforms and Grain streams; imports no jax."""
