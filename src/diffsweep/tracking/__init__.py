"""Mirrors of our own files in W&B, TensorBoard and CSV."""
