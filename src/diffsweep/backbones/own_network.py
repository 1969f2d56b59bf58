"""Your own network as a backbone: it is tried on two examples, and what it lacks is said in a line."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffsweep.backbones import check
from diffsweep.backbones.doors import Embeddings, HasDoors
from diffsweep.diffusion.condition import Condition
from diffsweep.mistakes import BadValue

CONTRACT = (
    "a network must have forward(x, logsnr, condition): x (N, {given}) noisy data of about unit variance, logsnr (N,) "
    "which may be infinite, condition a Condition or None; and return a tensor (N, {wanted})"
)


class OwnNetwork(nn.Module):
    """Any `torch.nn.Module` with forward(x, logsnr, condition), checked before anything is trained.

    It is given the `diffsweep.diffusion.Condition`: `condition["label"].value` are labels int64 (N,), and
    `condition["label"].present` says which examples have one. A network with an attribute `doors`
    (`diffsweep.backbones.doors`) is given `Embeddings` instead, as the networks here are.

    Args:
        shape: of an example.
        network: the module.
        inputs: examples side by side along the first dimension of x, as with an earlier estimate for self-conditioning.
        outputs: examples side by side in the result, as with a learned variance.

    Raises:
        ValueError: for what is no module.
    """

    def __init__(
        self, shape: Sequence[int], network: nn.Module | None = None, inputs: int = 1, outputs: int = 1
    ) -> None:
        super().__init__()
        check.integers(1, inputs=inputs, outputs=outputs)
        given, wanted = (inputs * shape[0], *shape[1:]), (outputs * shape[0], *shape[1:])
        contract = CONTRACT.format(given=", ".join(map(str, given)), wanted=", ".join(map(str, wanted)))
        if not isinstance(network, nn.Module):
            raise BadValue("network", network, f"is no torch.nn.Module: set its _target_ to yours; {contract}")
        self.network, self.inputs, self.outputs = network, inputs, outputs
        self._given, self._wanted, self._contract = given, wanted, contract
        if isinstance(network, HasDoors):
            self.doors = network.doors

    def check_condition(self, condition: Condition | None) -> None:
        """Try the module on two examples with such a condition.

        Raises:
            ValueError: if it cannot be called so, or answers with another shape, saying what to implement.
        """
        network, name, contract = self.network, type(self.network).__name__, self._contract
        was_training = network.training
        given = None if isinstance(network, HasDoors) else condition
        try:
            with torch.no_grad():
                answer = network.eval()(torch.zeros(2, *self._given), torch.tensor([-torch.inf, 1.0]), given)
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(f"{name} cannot be called as a backbone ({reason}): {contract}") from error
        finally:
            network.train(was_training)
        if not isinstance(answer, Tensor) or tuple(answer.shape) != (2, *self._wanted):
            gave = f"shape {tuple(answer.shape)}" if isinstance(answer, Tensor) else f"a {type(answer).__name__}"
            raise ValueError(f"{name} answered with {gave} for two examples: {contract}")

    def forward(self, x: Tensor, logsnr: Tensor, condition: Condition | Embeddings | None = None) -> Tensor:
        """`x` (N, ...), `logsnr` (N,) and the condition, as the network wants them."""
        return self.network(x, logsnr, condition)
