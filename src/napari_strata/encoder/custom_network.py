"""Custom encoders: run a user's MONAI network and read its inner maps as features."""

from __future__ import annotations

import inspect
import logging
import math
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks import nets
from torch import Tensor, nn

from napari_strata.encoder.description import NetworkDescription, read_description
from napari_strata.encoder.identity import is_strata_encoder
from napari_strata.encoder.network import Encoder
from napari_strata.encoder.state_dict import fill, shorten
from napari_strata.encoder.weights import load_encoder
from napari_strata.errors import WeightsError

logger = logging.getLogger(__name__)

STRIDES = (1, 2, 4, 8)
"""Strides (input voxels per map voxel) of the four maps that a proposal uses.

If the network has no map at a stride, its next finer one is used.
"""
MOST_CHANNELS = 12
"""Wider maps are projected to this many channels, as in our encoder, to bound the cost."""
_FEWEST_CHANNELS = 4
"""Maps with fewer channels are images, masks or gates and are not read."""
_COARSEST = 16
"""Maps of a larger stride are not read."""
_HALO_VOX = 32
"""Smallest context of a tile on each side, in voxels."""
_TRIED_SHAPE = (64, 32, 32)
"""Shape (z, y, x) of the image on which a network is tried."""
_OUTDATED = {"SwinUNETR": ("img_size",)}
"""Arguments in older files that current MONAI no longer accepts."""


def open_encoder(path: Path | None = None) -> Encoder:
    """Open an encoder (the shipped one, one of ours or a custom one), frozen, on the CPU.

    Parameters
    ----------
    path : Path, optional
        The shipped weights if not given. Our weights end in .safetensors. A .toml or
        .json file describes a MONAI network and names its weights. A folder is a MONAI
        bundle.

    Raises
    ------
    WeightsError
        If a file is missing or damaged, does not fit the network, or could only be read
        by running code from it.
    """
    if path is None or is_strata_encoder(path):
        return load_encoder(path)
    return CustomEncoder(read_description(path))


def encoder_record(encoder: Encoder) -> dict[str, Any]:
    """Return a record of an encoder's network, as plain values for a sidecar."""
    if isinstance(encoder, CustomEncoder):
        return encoder.record
    return {"network": "strata", "strides": list(encoder.strides)}


class CustomEncoder(nn.Module):
    """A MONAI network whose inner maps are read as features.

    At each resolution, the input of the last convolution there is read: in a U-Net, the
    decoder's output at that level. Self-supervised weights of a SwinUNETR fill only its
    transformer; then the transformer's hidden states are read. A map wider than
    `MOST_CHANNELS` is projected to fixed random axes, the same for every scan. Then each
    voxel is scaled to unit length.

    Parameters
    ----------
    description : NetworkDescription
        The network, its arguments and its weights.

    Raises
    ------
    WeightsError
        If the network cannot be built or run, or the weights cannot be read or do not
        fit.
    """

    def __init__(self, description: NetworkDescription) -> None:
        super().__init__()
        self.description = description
        self.network = _build(description).eval().requires_grad_(False)
        self._in_channels = int(description.arguments.get("in_channels", 1))
        plan = _explore(self.network, self._in_channels, description)
        self.report = fill(self.network, plan.needed, description)
        if self.report.part == "swinViT":
            plan = _swin_plan(self.network, plan)
        self.strides: tuple[int, ...] = tuple(
            max((s for s in plan.taps if s <= slot), default=min(plan.taps))
            for slot in STRIDES
        )
        self._taps = {
            stride: tap for stride, tap in plan.taps.items() if stride in self.strides
        }
        self.channels: tuple[int, ...] = tuple(
            min(self._taps[stride].channels, MOST_CHANNELS) for stride in self.strides
        )
        self.multiple_of = plan.multiple_of
        self.halo_vox = max(_HALO_VOX, plan.multiple_of)
        self.live_channels = plan.live_channels
        self.reducers = nn.ModuleDict(
            {str(stride): _reducer(tap.channels) for stride, tap in self._taps.items()}
        )
        self.requires_grad_(False)
        logger.info("%s: %s", description.weights, self.record)

    @property
    def record(self) -> dict[str, Any]:
        """A summary of what was loaded, as plain values."""
        counts = {
            "loaded": len(self.report.loaded),
            "unused": len(self.report.unused),
            "not_needed": len(self.report.missing),
        }
        return {
            "network": self.description.network,
            "part": self.report.part,
            "values": counts,
            "strides": list(self.strides),
        }

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the four maps (1, channels, ...) of an image (1, 1, z, y, x)."""
        single = all(n == self.multiple_of for n in image.shape[2:])
        if single:  # an instance norm cannot work on one coarse voxel
            image = F.pad(image, (0, self.multiple_of, 0, 0, 0, 0), mode="replicate")
        read = self._read(self._prepare(image))
        order, flips = _turn(self.description.orientation)
        back = [0, 1, *(2 + order.index(axis) for axis in range(3))]
        maps = {}
        for stride, level in read.items():
            level = level.flip(flips).permute(back)
            maps[stride] = level[..., : level.shape[-1] // 2] if single else level
        return tuple(maps[stride] for stride in self.strides)

    def _prepare(self, image: Tensor) -> Tensor:
        """Convert our intensity to the range, orientation and channels of the network."""
        low, high = self.description.range
        order, flips = _turn(self.description.orientation)
        turned = image.permute(0, 1, *(2 + axis for axis in order)).flip(flips)
        return (
            (turned * (high - low) + low)
            .expand(-1, self._in_channels, -1, -1, -1)
            .contiguous()
        )

    def _reduce(self, stride: int, level: Tensor) -> Tensor:
        """Project a map to at most `MOST_CHANNELS` channels of unit length."""
        reduced: Tensor = self.reducers[str(stride)](level)
        return reduced.mul_((reduced.square().sum(1, keepdim=True) + 1e-8).rsqrt_())

    def _read(self, image: Tensor) -> dict[int, Tensor]:
        """Run the network and return its map at each stride.

        Every map is reduced as soon as it is computed, to save memory.
        """
        maps: dict[int, Tensor] = {}

        def keep(stride: int, level: Tensor) -> None:
            size = [n // stride for n in image.shape[2:]]
            # The strides of some networks differ between axes.
            if list(level.shape[2:]) != size:
                level = F.interpolate(
                    level, size=size, mode="trilinear", align_corners=False
                )
            maps[stride] = self._reduce(stride, level)

        with torch.inference_mode(), ExitStack() as hooks:
            if self.report.part == "swinViT":
                states = self.network.get_submodule("swinViT")(
                    image, self.network.normalize
                )
                for stride, tap in self._taps.items():
                    keep(stride, states[tap.output])
                return maps
            for stride, tap in self._taps.items():
                hook = self.network.get_submodule(tap.module).register_forward_pre_hook(
                    lambda _, args, stride=stride: keep(stride, args[0])
                )
                hooks.callback(hook.remove)
            self.network(image)
        return maps


@dataclass(frozen=True, slots=True)
class _Tap:
    """Where a map is read: the input of a module, or its output number `output` if >= 0."""

    module: str
    channels: int
    output: int = -1


@dataclass(frozen=True, slots=True)
class _Plan:
    """How to read a network's maps.

    Parameters
    ----------
    taps : dict
        Where to read the map of each stride.
    needed : frozenset of str
        Names of the modules that run before the last tap.
    multiple_of : int
        Every side of the input must be a multiple of this.
    live_channels : int
        Estimated full-resolution channels in memory at once.
    """

    taps: dict[int, _Tap]
    needed: frozenset[str]
    multiple_of: int
    live_channels: int


def _build(description: NetworkDescription) -> nn.Module:
    """Construct the MONAI network of a description, with untrained weights."""
    kind = getattr(nets, description.network)
    arguments = {
        name: value
        for name, value in description.arguments.items()
        if name not in _OUTDATED.get(description.network, ())
    }
    if "spatial_dims" in inspect.signature(kind).parameters:
        arguments.setdefault("spatial_dims", 3)
    try:
        network: nn.Module = kind(**arguments)
    except (
        TypeError,
        ValueError,
        LookupError,
        RuntimeError,
        AttributeError,
        ArithmeticError,
        ImportError,
        AssertionError,
    ) as err:
        raise WeightsError(
            f"MONAI's {description.network} cannot be made with the arguments in"
            f" {description.source} ({shorten(err)}). Give the arguments that the"
            " weights were trained with."
        ) from err
    return network


def _explore(
    network: nn.Module, in_channels: int, description: NetworkDescription
) -> _Plan:
    """Run a network once on a small image, and find where its maps can be read."""
    image = torch.linspace(0, 1, in_channels * math.prod(_TRIED_SHAPE)).reshape(
        1, in_channels, *_TRIED_SHAPE
    )
    trace = _Trace(image)
    with torch.inference_mode(), ExitStack() as hooks:
        for name, module in network.named_modules():
            hook = module.register_forward_pre_hook(
                lambda module, args, name=name: trace.record(name, module, args)
            )
            hooks.callback(hook.remove)
        _try(network, image, description)
    if not trace.taps:
        raise WeightsError(
            f"MONAI's {description.network}, as {description.source} describes it, has"
            " no inner map to read features from."
        )
    last = max(trace.modules.index(tap.module) for tap in trace.taps.values())
    return _Plan(
        dict(sorted(trace.taps.items())),
        frozenset(trace.modules[:last]),
        trace.deepest,
        -(-6 * trace.widest // image.shape[2:].numel()),
    )


class _Trace:
    """Record of the modules that run on an image, and of the maps that they receive."""

    def __init__(self, image: Tensor) -> None:
        self.image = image
        self.modules: list[str] = []
        self.taps: dict[int, _Tap] = {}
        self.deepest, self.widest = 1, 0

    def record(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Note that a module runs, and where its input can be read as a map."""
        self.modules.append(name)
        if not args or not isinstance(args[0], Tensor):
            return
        level, whole = args[0], self.image.shape[2:]
        self.widest = max(self.widest, level.numel())
        if (
            not isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
            or level.shape[2:].numel() == 1
        ):
            return
        if any(n % part for n, part in zip(whole, level.shape[2:], strict=True)):
            return
        strides = [n // part for n, part in zip(whole, level.shape[2:], strict=True)]
        self.deepest = max(self.deepest, *strides)
        if (
            level.data_ptr() != self.image.data_ptr()
            and level.shape[1] >= _FEWEST_CHANNELS
            and min(strides) <= _COARSEST
        ):
            self.taps[min(strides)] = _Tap(name, level.shape[1])


def _try(network: nn.Module, image: Tensor, description: NetworkDescription) -> None:
    """Run a network; raise `WeightsError` if it cannot run."""
    try:
        network(image)
    except ImportError as err:
        raise WeightsError(
            f"MONAI's {description.network} needs a package that is not installed"
            f" ({shorten(err)}). Install it."
        ) from err
    except (
        RuntimeError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        AssertionError,
    ) as err:
        raise WeightsError(
            f"MONAI's {description.network}, as {description.source} describes it,"
            f" cannot run on a 3D image of {image.shape[1]} channel(s)"
            f" ({shorten(err)}). Give the arguments that the weights were trained"
            " with."
        ) from err


def _swin_plan(network: nn.Module, plan: _Plan) -> _Plan:
    """Return the plan that reads the hidden states of a SwinUNETR's transformer."""
    first = int(network.patch_size)  # type: ignore[arg-type]
    width = int(network.get_submodule("swinViT").embed_dim)  # type: ignore[arg-type]
    taps = {first * 2**k: _Tap("swinViT", width * 2**k, output=k) for k in range(4)}
    return _Plan(taps, plan.needed, first**5, plan.live_channels)


def _reducer(width: int) -> nn.Conv3d:
    """Return a 1x1x1 convolution that projects a wide map to fixed random orthogonal axes.

    A map of at most `MOST_CHANNELS` channels is left as it is.
    """
    axes = torch.eye(width, dtype=torch.float64)
    if width > MOST_CHANNELS:
        generator = torch.Generator().manual_seed(0)
        axes = torch.linalg.qr(
            torch.randn(width, MOST_CHANNELS, generator=generator, dtype=torch.float64)
        )[0].T
    mix = nn.Conv3d(width, len(axes), kernel_size=1, bias=False)
    mix.weight.data = axes.float()[:, :, None, None, None].contiguous()
    return mix


def _turn(orientation: str) -> tuple[list[int], list[int]]:
    """Return how to turn our images (to Inferior, Posterior, Left) to an orientation.

    These are our axes in the new order, and the tensor dimensions to flip afterwards.
    """
    ours = ("IS", "PA", "LR")
    order = [
        next(axis for axis in range(3) if letter in ours[axis])
        for letter in orientation
    ]
    flips = [
        2 + place for place, letter in enumerate(orientation) if letter not in "IPL"
    ]
    return order, flips
