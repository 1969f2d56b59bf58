"""A fit: the module, its batches, callbacks, averages and checkpoints, with Lightning underneath."""
