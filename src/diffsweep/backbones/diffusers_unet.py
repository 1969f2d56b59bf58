"""The U-Net of diffusers, built from its own settings: what it trains can be opened there."""

from collections.abc import Sequence

from torch import Tensor, nn

from diffsweep.backbones import check
from diffsweep.backbones.conditioning import LIMIT
from diffsweep.backbones.doors import Doors, Embeddings


class DiffusersUNet(nn.Module):
    """diffusers' `UNet2DModel`, told log-SNR 20 down to -20 as its timestep 0 to 1000; its last layer starts at zero.

    Args:
        shape: (channels, height, width) of the data; its settings say which sizes it can halve.
        channels: of each level, its `block_out_channels`.
        down: kinds of the blocks on the way down, its `down_block_types`; `AttnDownBlock2D` attends.
        up: kinds of the blocks on the way up, its `up_block_types`.
        layers: residual layers of each block.
        groups: of each group norm.
        head: channels of an attention head.
        dropout: share of activations dropped while training.
        inputs: images stacked along the channels of x, as with an earlier estimate for self-conditioning.
        outputs: images stacked along the channels of the result, as with a learned variance.

    Raises:
        ValueError: if diffusers is not installed, if the data are not images, or in its own words for a bad setting.
    """

    def __init__(
        self,
        shape: Sequence[int],
        channels: Sequence[int] = (32, 64),
        down: Sequence[str] = ("DownBlock2D", "AttnDownBlock2D"),
        up: Sequence[str] = ("AttnUpBlock2D", "UpBlock2D"),
        layers: int = 1,
        groups: int = 8,
        head: int = 16,
        dropout: float = 0.0,
        inputs: int = 1,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        image = check.image(shape, "diffusers")
        check.integers(1, layers=layers, groups=groups, head=head, inputs=inputs, outputs=outputs)
        try:
            from diffusers import UNet2DModel  # pyright: ignore[reportPrivateImportUsage]
        except ImportError as error:
            raise ValueError("backbone=diffusers needs diffusers: pip install 'diffsweep[diffusers]'") from error
        self.shape = (inputs * image[0], *image[1:])
        self.inputs, self.outputs = inputs, outputs
        self.network = UNet2DModel(
            sample_size=(image[1], image[2]),
            in_channels=inputs * image[0],
            out_channels=outputs * image[0],
            block_out_channels=tuple(channels),
            down_block_types=tuple(down),
            up_block_types=tuple(up),
            layers_per_block=layers,
            norm_num_groups=groups,
            attention_head_dim=head,
            dropout=dropout,
        )
        self.vector = 4 * channels[0]
        self.doors = Doors(vector=self.vector)
        # Its place for the vector of a label; no weight of it.
        self.network.class_embedding = nn.Identity()
        nn.init.zeros_(self.network.conv_out.weight)
        nn.init.zeros_(self.network.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, logsnr: Tensor, embeddings: Embeddings | None = None) -> Tensor:
        """`x` (N, inputs * C, H, W) of about unit variance, `logsnr` (N,) with any value.

        `embeddings` come by the doors. Returns (N, outputs * C, H, W).
        """
        check.built_for(x, self.shape, "network", "images")
        vector = None if embeddings is None else embeddings.vector
        if vector is None:
            vector = x.new_zeros(len(x), self.vector)
        timestep = (LIMIT - logsnr.clamp(-LIMIT, LIMIT)) * (1000 / (2 * LIMIT))
        return self.network(x, timestep, class_labels=vector, return_dict=False)[0]
