"""A cell: numbered samples are drawn from a trained model and measured."""
