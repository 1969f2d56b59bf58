"""Your own network as a backbone: it is tried on two examples, and what it lacks is said in a line."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffsweep.backbones import check
from diffsweep.mistakes import BadValue

CONTRACT = (
    "a network must have forward(x, logsnr, condition): x (N, {given}) noisy data of about unit variance, logsnr (N,) "
    "which may be infinite, condition int64 labels (N,) or None; and return a tensor (N, {wanted})"
)


class OwnNetwork(nn.Module):
    """Any `torch.nn.Module` with forward(x, logsnr, condition), checked before anything is trained.

    Args:
        shape: of an example.
        network: the module.
        classes: number of labels that it is told, `classes` itself meaning "no label"; 0 for a network without labels,
            which is called with None.
        inputs: examples side by side along the first dimension of x, as with an earlier estimate for self-conditioning.
        outputs: examples side by side in the result, as with a learned variance.

    Raises:
        ValueError: if the module cannot be called so, or answers with another shape, saying what to implement.
    """

    def __init__(
        self,
        shape: Sequence[int],
        network: nn.Module | None = None,
        classes: int = 0,
        inputs: int = 1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        check.integers(1, inputs=inputs, outputs=outputs)
        check.integers(0, classes=classes)
        given, wanted = ((count * shape[0], *shape[1:]) for count in (inputs, outputs))
        contract = CONTRACT.format(given=", ".join(map(str, given)), wanted=", ".join(map(str, wanted)))
        if not isinstance(network, nn.Module):
            raise BadValue("network", network, f"is no torch.nn.Module: set its _target_ to yours; {contract}")
        name = type(network).__name__
        labels = torch.tensor([0, classes]) if classes else None
        was_training = network.training
        try:
            with torch.no_grad():
                answer = network.eval()(torch.zeros(2, *given), torch.tensor([-torch.inf, 1.0]), labels)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{name} cannot be called as a backbone ({reason}): {contract}") from error
        finally:
            network.train(was_training)
        if not isinstance(answer, Tensor) or tuple(answer.shape) != (2, *wanted):
            gave = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
            raise ValueError(f"{name} answered with {gave} for two examples: {contract}")
        self.network = network
        self.classes, self.inputs, self.outputs = classes, inputs, outputs

    def forward(self, x: Tensor, logsnr: Tensor, condition: Tensor | None = None) -> Tensor:
        """`x` (N, ...), `logsnr` (N,), `condition` int64 (N,) or None, as the network wants them."""
        return self.network(x, logsnr, condition)
