"""The network: a small U-Net of MONAI's blocks, read out at four resolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch
import torch.nn.functional as F
from monai.networks.nets.basic_unet import BasicUNet, Down, TwoConv, UpCat
from monai.networks.nets.segresnet import SegResNet
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_strata.errors import SettingsError

TrunkName = Literal["light", "basic", "segresnet"]
_SLAB_PLANES, _SLAB_MARGIN = 32, 2
"""Planes of a slab in the full-resolution layers, and the margin that a slab needs.

The margin is the reach of two convolutions of 3 voxels. Both numbers must be even.
"""
_ACT = ("LeakyReLU", {"negative_slope": 0.1, "inplace": True})
_NORM: tuple[str, dict[str, float]] = ("batch", {})


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Architecture of a network; written into the header of its weights.

    Parameters
    ----------
    trunk : {"light", "basic", "segresnet"}
        "basic" is MONAI's BasicUNet, the shipped one. For comparison, "segresnet" is
        MONAI's SegResNet and "light" our half-resolution U-Net with a thin
        full-resolution branch.
    width : int
        Channels of the finest U-Net level; the coarser ones are multiples of it.
    channels : int
        Channels of the unit-length features at each of the four levels.
    """

    trunk: TrunkName = "basic"
    width: int = 16
    channels: int = 12

    def to_dict(self) -> dict[str, Any]:
        """Return the shape as plain values."""
        return asdict(self)


class Encoder(Protocol):
    """Interface of an encoder that maps intensity to features, ours or a custom one."""

    strides: tuple[int, ...]
    """Voxels of the input per voxel of each map, finest first."""
    channels: tuple[int, ...]
    """Channels of each map."""
    multiple_of: int
    """Every side of the input must be a multiple of this."""
    halo_vox: int
    """Context that a tile needs on each side, in voxels."""

    def __call__(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return a map (batch, channels, ...) per level of an image (batch, 1, z, y, x)."""
        ...


class LightTrunk(nn.Module):
    """A half-resolution U-Net with a thin full-resolution branch for sharp edges.

    A plain U-Net spends three quarters of its time in the full-resolution layers. Here
    these are two narrow convolutions.
    """

    multiple_of = 16

    def __init__(self, width: int) -> None:
        super().__init__()
        thin, wide = width // 2, (width, 2 * width, 4 * width, 8 * width)
        self.widths: tuple[int, ...] = (width, *wide[:3])
        self.stem = _conv(1, thin)
        self.shrink = nn.Conv3d(thin, width, kernel_size=2, stride=2)
        self.at_2 = TwoConv(3, width, wide[0], _ACT, _NORM, bias=False)
        self.at_4 = Down(3, wide[0], wide[1], _ACT, _NORM, bias=False)
        self.at_8 = Down(3, wide[1], wide[2], _ACT, _NORM, bias=False)
        self.at_16 = Down(3, wide[2], wide[3], _ACT, _NORM, bias=False)
        self.up_8 = _up(wide[3], wide[2])
        self.up_4 = _up(wide[2], wide[1])
        self.up_2 = _up(wide[1], wide[0])
        self.thin = nn.Conv3d(wide[0], thin, kernel_size=1)
        self.fuse = _conv(2 * thin, width)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the decoder maps of (batch, 1, z, y, x), finest first."""
        sharp = self.stem(image)
        half = self.at_2(self.shrink(sharp))
        quarter = self.at_4(half)
        eighth = self.at_8(quarter)
        map_8 = self.up_8(self.at_16(eighth), eighth)
        map_4 = self.up_4(map_8, quarter)
        map_2 = self.up_2(map_4, half)
        narrow = self.thin(map_2).contiguous(memory_format=torch.channels_last_3d)
        context = F.interpolate(
            narrow, scale_factor=2.0, mode="trilinear", align_corners=False
        )
        return self.fuse(torch.cat([sharp, context], dim=1)), map_2, map_4, map_8


class BasicTrunk(nn.Module):
    """MONAI's BasicUNet, read at its four decoder levels."""

    multiple_of = 16

    def __init__(self, width: int) -> None:
        super().__init__()
        features = (width, width, 2 * width, 4 * width, 8 * width, width)
        self.widths: tuple[int, ...] = (
            features[5],
            features[1],
            features[2],
            features[3],
        )
        self.unet = BasicUNet(
            3, 1, 1, features=features, norm="batch", upsample="nontrainable"
        )
        for module in self.unet.modules():
            if isinstance(module, nn.Upsample):
                # else a tile's features would depend on the tile's size
                module.align_corners = False

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the decoder maps of (batch, 1, z, y, x), finest first."""
        if not torch.is_grad_enabled() and not self.training:
            return self.forward_in_slabs(image)
        unet = self.unet
        skip_1 = unet.conv_0(image)
        map_2, map_4, map_8 = self._coarse(unet.down_1(skip_1))
        return unet.upcat_1(map_2, skip_1), map_2, map_4, map_8

    def _coarse(self, skip_2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the decoder maps at half, quarter and eighth resolution."""
        unet = self.unet
        skip_4 = unet.down_2(skip_2)
        skip_8 = unet.down_3(skip_4)
        map_8 = unet.upcat_4(unet.down_4(skip_8), skip_8)
        map_4 = unet.upcat_3(map_8, skip_4)
        return unet.upcat_2(map_4, skip_2), map_4, map_8

    def forward_in_slabs(
        self, image: Tensor, finish: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[Tensor, ...]:
        """Return what `forward` returns, with the last layers computed in slabs.

        For inference only. The last layers would take most of the memory. They reach two
        voxels far, so each slab gets a margin of two planes on either side, and each of
        the two convolutions removes one of them. The result equals that of the whole
        image.

        `finish` is applied to the finest level slab by slab.
        """
        unet, depth = self.unet, image.shape[2]
        skip = unet.conv_0(image)
        map_2, map_4, map_8 = self._coarse(unet.down_1(skip))
        finest = image.new_empty(0)
        for start in range(0, depth, _SLAB_PLANES):
            stop = min(start + _SLAB_PLANES, depth)
            low, high = max(0, start - _SLAB_MARGIN), min(depth, stop + _SLAB_MARGIN)
            before = min(2, low // 2)
            half = map_2[:, :, low // 2 - before : high // 2 + 2]
            context = unet.upcat_1.upsample(half)[
                :, :, 2 * before : 2 * before + high - low
            ]
            slab = self._last_convs(
                torch.cat([skip[:, :, low:high], context], dim=1),
                ends=(low == start, high == stop),
            )
            slab = finish(slab) if finish else slab
            if not start:
                size = (*slab.shape[:2], *image.shape[2:])
                finest = torch.empty(
                    size, device=image.device, memory_format=torch.channels_last_3d
                )
            finest[:, :, start:stop] = slab
        return finest, map_2, map_4, map_8

    def _last_convs(self, slab: Tensor, ends: tuple[bool, bool]) -> Tensor:
        """Run the last two convolutions without padding along z.

        Each removes a plane on either side. At the `ends` of the image they pad with
        zeros instead.
        """
        convs: Any = self.unet.upcat_1.convs
        for layer in (convs.conv_0, convs.conv_1):
            padded = (
                F.pad(slab, (0, 0, 0, 0, int(ends[0]), int(ends[1])))
                if any(ends)
                else slab
            )
            slab = layer.adn(
                F.conv3d(padded, layer.conv.weight, layer.conv.bias, padding=(0, 1, 1))
            )
        return slab


class SegResTrunk(nn.Module):
    """MONAI's SegResNet, read at its bottleneck and its three decoder levels."""

    multiple_of = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widths: tuple[int, ...] = (width, 2 * width, 4 * width, 8 * width)
        self.net = SegResNet(
            3, width, 1, 1, norm=_NORM, blocks_down=(1, 1, 1, 1), blocks_up=(1, 1, 1)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the decoder maps of (batch, 1, z, y, x), finest first."""
        coarse, skips = self.net.encode(image)
        maps = [coarse]
        for up, layer, skip in zip(
            self.net.up_samples, self.net.up_layers, skips[-2::-1], strict=True
        ):
            maps.append(layer(up(maps[-1]) + skip))
        return tuple(reversed(maps))


Trunk = LightTrunk | BasicTrunk | SegResTrunk
_TRUNKS: dict[TrunkName, type[Trunk]] = {
    "light": LightTrunk,
    "basic": BasicTrunk,
    "segresnet": SegResTrunk,
}


class _UnitHead(nn.Module):
    """A linear projection of single voxels to unit-length channels."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, channels)

    def forward(self, rows: Tensor) -> Tensor:
        """Project (..., width) to (..., channels)."""
        mixed: Tensor = self.mix(rows)
        length = torch.linalg.vector_norm(mixed, dim=-1, keepdim=True).clamp_min(1e-4)
        return mixed / length if torch.is_grad_enabled() else mixed.div_(length)


class StrataEncoder(nn.Module):
    """A trunk whose four decoder maps are each projected to a few unit-length channels.

    The finest level separates tissues by appearance, the coarser ones by context. The
    `painter` layer reconstructs masked intensity, in pretraining only.

    Parameters
    ----------
    shape : NetworkShape
        Its architecture.
    """

    strides: tuple[int, ...] = (1, 2, 4, 8)
    halo_vox = 64

    def __init__(self, shape: NetworkShape | None = None) -> None:
        super().__init__()
        self.shape = shape or NetworkShape()
        self.trunk: Trunk = _TRUNKS[self.shape.trunk](self.shape.width)
        self.channels: tuple[int, ...] = (self.shape.channels,) * 4
        self.multiple_of = self.trunk.multiple_of
        self.heads = nn.ModuleList(
            _UnitHead(width, self.shape.channels) for width in self.trunk.widths
        )
        self.painter = nn.Linear(self.trunk.widths[0], 1)

    def decode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the raw decoder maps of (batch, 1, z, y, x), finest first."""
        maps: tuple[Tensor, ...] = self.trunk(image)
        return maps

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the features of each level, (batch, channels, z', y', x'), finest first.

        `image` is (batch, 1, z, y, x); its sides must be multiples of `multiple_of`.
        """
        first, *rest = self.heads
        if (
            isinstance(self.trunk, BasicTrunk)
            and not torch.is_grad_enabled()
            and not self.training
        ):
            finest, *maps = self.trunk.forward_in_slabs(
                image, lambda slab: _in_slabs(first, slab)
            )
        else:
            level, *maps = self.decode(image)
            finest = _in_slabs(first, level)
        return finest, *(
            _in_slabs(head, level) for head, level in zip(rest, maps, strict=True)
        )

    def project(self, rows: Tensor, level: int) -> Tensor:
        """Return unit-length features (n, channels) of voxels (n, width) of a level."""
        features: Tensor = self.heads[level](rows)
        return features

    def paint(self, rows: Tensor) -> Tensor:
        """Return the predicted intensity (n,) of voxels (n, width) of the finest level."""
        painted: Tensor = self.painter(rows)
        return painted[:, 0]


def _in_slabs(head: nn.Module, level: Tensor) -> Tensor:
    """Project a map from (batch, width, z, y, x) to (batch, channels, z, y, x).

    Without gradients this is done in slabs of planes, to save memory.
    """
    rows = level.permute(0, 2, 3, 4, 1)
    if torch.is_grad_enabled():
        whole: Tensor = head(rows)
        return whole.permute(0, 4, 1, 2, 3)
    parts = [
        head(rows[:, start : start + _SLAB_PLANES])
        for start in range(0, rows.shape[1], _SLAB_PLANES)
    ]
    return torch.cat(parts, dim=1).permute(0, 4, 1, 2, 3)


def fold_norms(encoder: nn.Module) -> None:
    """Fold every frozen batch norm into the convolution before it, in place.

    The network computes the same in less time.
    """
    for module in encoder.modules():
        norm = getattr(getattr(module, "adn", None), "N", None)
        conv = getattr(module, "conv", None)
        if isinstance(norm, nn.BatchNorm3d) and isinstance(conv, nn.Conv3d):
            module.conv = fuse_conv_bn_eval(conv, norm)
            module.adn.N = nn.Identity()  # type: ignore[union-attr]


def _conv(in_channels: int, out_channels: int) -> nn.Module:
    from monai.networks.blocks.convolutions import Convolution

    return Convolution(3, in_channels, out_channels, act=_ACT, norm=_NORM, bias=False)


def _up(in_channels: int, out_channels: int) -> UpCat:
    # align_corners would make a tile's features depend on the tile's size.
    return UpCat(
        3,
        in_channels,
        out_channels,
        out_channels,
        _ACT,
        _NORM,
        bias=False,
        upsample="nontrainable",
        align_corners=False,
    )


def pick_device(name: str) -> torch.device:
    """Turn "auto", "cpu", "cuda" or "mps" into a device; auto takes a CUDA GPU if there is one.

    Raises
    ------
    SettingsError
        If the requested GPU is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            "No CUDA GPU was found. Use --device auto or cpu, or install a CUDA build"
            " of torch (see the README)."
        )
    if name == "mps" and not torch.backends.mps.is_available():
        raise SettingsError(
            "No Apple GPU was found (Metal Performance Shaders). Use --device auto or"
            " cpu."
        )
    return torch.device(name)


@contextmanager
def torch_threads(threads: int) -> Iterator[int]:
    """Set torch's number of CPU threads inside the block; 0 leaves it unchanged.

    Yields the number in effect.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
