"""The network: MONAI's BasicUNet, read out at its four decoder levels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from monai.networks.nets.basic_unet import BasicUNet
from torch import Tensor, nn

from napari_strata.errors import SettingsError

FEATURES = (16, 16, 32, 64, 128, 16)
LEVEL_CHANNELS = (12, 12, 12, 12)
"""Channels read out at full, half, quarter and eighth resolution."""
STRIDE = 16
"""Inputs are padded to a multiple of this."""


class StrataEncoder(nn.Module):
    """A U-Net whose four decoder levels are each projected to a few unit-length channels.

    The finest level tells tissues apart by what they look like, the coarser ones by where and among what they lie.
    The U-Net's own last layer paints the image back in where it was masked, during pretraining only.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unet = BasicUNet(3, 1, 1, features=FEATURES, norm="batch", upsample="nontrainable")
        widths = (FEATURES[5], FEATURES[1], FEATURES[2], FEATURES[3])
        self.heads = nn.ModuleList(nn.Conv3d(width, channels, 1) for width, channels in zip(widths, LEVEL_CHANNELS, strict=True))

    def decode(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Give the raw decoder maps of (batch, 1, z, y, x), finest first."""
        unet = self.unet
        skip_1 = unet.conv_0(image)
        skip_2 = unet.down_1(skip_1)
        skip_4 = unet.down_2(skip_2)
        skip_8 = unet.down_3(skip_4)
        eighth = unet.upcat_4(unet.down_4(skip_8), skip_8)
        quarter = unet.upcat_3(eighth, skip_4)
        half = unet.upcat_2(quarter, skip_2)
        return unet.upcat_1(half, skip_1), half, quarter, eighth

    def levels(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Project decoder maps to unit-length features, (batch, 12, ...) each, finest first."""
        return tuple(F.normalize(head(level), dim=1) for head, level in zip(self.heads, maps, strict=True))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Give the features of each level for (batch, 1, z, y, x), every side a multiple of 16."""
        return self.levels(self.decode(image))

    def paint(self, finest: Tensor) -> Tensor:
        """Paint the image back from the finest decoder map, (batch, 1, z, y, x)."""
        painted: Tensor = self.unet.final_conv(finest)
        return painted


def pick_device(name: str) -> torch.device:
    """Turn "auto", "cpu" or "cuda" into a device; auto takes a GPU when there is one.

    Raises
    ------
    SettingsError
        If a CUDA device is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError("No CUDA GPU was found. Use --device auto or cpu, or install a CUDA build of torch (see the README).")
    return torch.device(name)


@contextmanager
def torch_threads(threads: int) -> Iterator[int]:
    """Let torch take this many CPU threads inside the block (0: as many as before); gives how many it takes."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
