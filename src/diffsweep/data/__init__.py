"""Datasets: images, videos and sounds as their files have them, and points of the plane with a known density.

A dataset is one file with one class, named by a YAML of conf/dataset. It knows the shape of an example, its labels, the
standard deviation of its values, how to load a split, and how to turn what a network sees into stored values. plane.py
is what the toy densities share, examples.py a set of examples read by number; modality.py what kinds of data there are;
idx.py and cifar10.py read file formats. A user's own pictures, videos and sounds are found by `collections`, decoded by
decoders.py and stored by packing.py.
"""
