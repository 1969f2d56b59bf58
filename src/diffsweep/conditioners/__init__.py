"""What a model is told of an example beside the noise level: how it is read, and how a network takes it in.

- `conditioner`: what an option of the group `condition` must be.
- `conditioned`: a network together with what brings its conditions to its doors.
- `control_net`: a finished network that is told more by a copy of its encoder.
- `label`, `number`, `picture_map`: the class; a number; edges, which `hed` may find, a coarser picture.
- `text`: a caption, of which `text_encoder` makes numbers and `text_embeddings` keeps them.
"""

from diffsweep.conditioners.control_net import ControlNet
from diffsweep.conditioners.label import Label, imported_label
from diffsweep.conditioners.number import Number
from diffsweep.conditioners.picture_map import Edges, LowResolution
from diffsweep.conditioners.text import Text

__all__ = ["ControlNet", "Edges", "Label", "LowResolution", "Number", "Text", "imported_label"]
