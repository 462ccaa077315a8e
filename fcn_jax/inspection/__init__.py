"""Looks through a folder of images and masks before it is trained on."""
