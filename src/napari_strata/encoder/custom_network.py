"""Run a network that a user brings.

Build it, load its weights, read its inner maps as features.
"""

from __future__ import annotations

import hashlib
import inspect
import logging
import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks import nets
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from napari_strata.encoder.description import NetworkDescription, read_description
from napari_strata.encoder.network import Encoder
from napari_strata.encoder.state_dict import fill, shorten
from napari_strata.encoder.weights import load_encoder, weights_hash
from napari_strata.errors import WeightsError
from napari_strata.filenames import WEIGHTS_SUFFIX, plain_name

logger = logging.getLogger(__name__)

STRIDES = (1, 2, 4, 8)
"""Voxels per voxel of the four maps that a proposal weighs.

A network's nearest ones take their places.
"""
MOST_CHANNELS = 12
"""Wider maps are brought down to this, as wide as ours: memory and time stay the same."""
_FEWEST_CHANNELS = 4
"""Narrower maps are images, masks or gates."""
_COARSEST = 16
_HALO_VOX = 32
_TRIED_SHAPE = (64, 32, 32)
_OUTDATED = {"SwinUNETR": ("img_size",)}
"""Arguments that older files give and today's MONAI no longer takes."""


def open_encoder(path: Path | None = None) -> Encoder:
    """Open an encoder, frozen and ready to run on the CPU.

    The shipped one, one of ours, or one that a user brings.

    Parameters
    ----------
    path : Path, optional
        The shipped weights if not given. Ours end in .safetensors; a .toml or .json
        file describes a MONAI network and names its weights; a folder is a MONAI
        bundle.

    Raises
    ------
    WeightsError
        If something is missing or damaged, does not fit, or would need code from the
        file to be run.
    """
    if path is None or _is_ours(path):
        return load_encoder(path)
    return CustomEncoder(read_description(path))


def encoder_hash(path: Path | None = None) -> str:
    """Return the SHA-256 of what `open_encoder` reads, for sidecars and cases.

    For a network that a user brings it covers the description (or the bundle's config)
    and the weights.

    Raises
    ------
    WeightsError
        If something is missing.
    """
    if path is None or _is_ours(path):
        return weights_hash(path)
    try:
        files = tuple(
            (file, file.stat().st_size, file.stat().st_mtime_ns)
            for file in read_description(path).files
        )
    except OSError as err:
        raise WeightsError(
            f"Encoder weights not found at {err.filename}. Check what {path} says."
        ) from err
    return _hash_together(files)


def encoder_record(encoder: Encoder) -> dict[str, Any]:
    """Return which network an encoder is, as plain values for a sidecar."""
    if isinstance(encoder, CustomEncoder):
        return encoder.record
    return {"network": "strata", "strides": list(encoder.strides)}


@lru_cache(maxsize=8)
def _hash_together(files: tuple[tuple[Path, int, int], ...]) -> str:
    each = [hashlib.sha256(file.read_bytes()).digest() for file, _, _ in files]
    return hashlib.sha256(b"".join(each)).hexdigest()


def _is_ours(path: Path) -> bool:
    """Return whether `load_encoder` is the one to read this, or to say what is wrong with it."""
    if path.suffix.lower() != WEIGHTS_SUFFIX or path.is_dir():
        return False
    try:
        with plain_name(path) as name, safe_open(name, framework="pt") as store:
            return (
                (store.metadata() or {}).get("format", "").startswith("strata-encoder")
            )
    except (SafetensorError, OSError):
        return True


class CustomEncoder(nn.Module):
    """A MONAI network whose inner maps are read as features.

    At each resolution the map that goes into the last convolution there is read: in a
    U-Net, what its decoder says at that level. Of a SwinUNETR with self-supervised
    weights, which fill its transformer only, the transformer's hidden states are read.
    A map wider than `MOST_CHANNELS` is projected on fixed random axes, the same for
    every scan; then each voxel is made unit length.

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
        """Return what was loaded, as plain values."""
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
        """Return the four maps of (1, 1, z, y, x), (1, channels, ...) each; see `Encoder`."""
        single = all(n == self.multiple_of for n in image.shape[2:])
        if single:  # an instance norm cannot work on one coarse voxel
            image = F.pad(image, (0, self.multiple_of, 0, 0, 0, 0), mode="replicate")
        found = self._read(self._prepare(image))
        order, flips = _turn(self.description.orientation)
        back = [0, 1, *(2 + order.index(axis) for axis in range(3))]
        maps = {}
        for stride, level in found.items():
            level = level.flip(flips).permute(back)
            maps[stride] = level[..., : level.shape[-1] // 2] if single else level
        return tuple(maps[stride] for stride in self.strides)

    def _prepare(self, image: Tensor) -> Tensor:
        """Scale, turn and repeat our intensity into what the network expects."""
        low, high = self.description.range
        order, flips = _turn(self.description.orientation)
        turned = image.permute(0, 1, *(2 + axis for axis in order)).flip(flips)
        return (
            (turned * (high - low) + low)
            .expand(-1, self._in_channels, -1, -1, -1)
            .contiguous()
        )

    def _reduce(self, stride: int, level: Tensor) -> Tensor:
        reduced: Tensor = self.reducers[str(stride)](level)
        return reduced.mul_((reduced.square().sum(1, keepdim=True) + 1e-8).rsqrt_())

    def _read(self, image: Tensor) -> dict[int, Tensor]:
        """Run the network; give its map at each stride, reduced as soon as it is there."""
        found: dict[int, Tensor] = {}

        def keep(stride: int, level: Tensor) -> None:
            size = [n // stride for n in image.shape[2:]]
            # a network that shrinks its axes unequally
            if list(level.shape[2:]) != size:
                level = F.interpolate(
                    level, size=size, mode="trilinear", align_corners=False
                )
            found[stride] = self._reduce(stride, level)

        with torch.inference_mode(), ExitStack() as hooks:
            if self.report.part == "swinViT":
                states = self.network.get_submodule("swinViT")(
                    image, self.network.normalize
                )
                for stride, tap in self._taps.items():
                    keep(stride, states[tap.output])
                return found
            for stride, tap in self._taps.items():
                hook = self.network.get_submodule(tap.module).register_forward_pre_hook(
                    lambda _, given, stride=stride: keep(stride, given[0])
                )
                hooks.callback(hook.remove)
            self.network(image)
        return found


@dataclass(frozen=True, slots=True)
class _Tap:
    """Where a map is read: what goes into a module, or the module's output of that number."""

    module: str
    channels: int
    output: int = -1


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where to read a network at each stride.

    The modules that run before the last of them; what its input must be.
    """

    taps: dict[int, _Tap]
    needed: frozenset[str]
    multiple_of: int
    live_channels: int


def _build(description: NetworkDescription) -> nn.Module:
    kind = getattr(nets, description.network)
    given = {
        name: value
        for name, value in description.arguments.items()
        if name not in _OUTDATED.get(description.network, ())
    }
    if "spatial_dims" in inspect.signature(kind).parameters:
        given.setdefault("spatial_dims", 3)
    try:
        network: nn.Module = kind(**given)
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
    """Run a network once on a small image.

    Note at which convolutions its maps can be read.
    """
    image = torch.linspace(0, 1, in_channels * math.prod(_TRIED_SHAPE)).reshape(
        1, in_channels, *_TRIED_SHAPE
    )
    seen: list[str] = []
    taps: dict[int, _Tap] = {}
    deepest, widest = 1, 0

    def note(name: str, module: nn.Module, given: tuple[Any, ...]) -> None:
        nonlocal deepest, widest
        seen.append(name)
        if not given or not isinstance(given[0], Tensor):
            return
        level = given[0]
        widest = max(widest, level.numel())
        if (
            not isinstance(module, nn.Conv3d | nn.ConvTranspose3d)
            or level.shape[2:].numel() == 1
        ):
            return
        if any(
            whole % n for whole, n in zip(image.shape[2:], level.shape[2:], strict=True)
        ):
            return
        strides = [
            whole // n
            for whole, n in zip(image.shape[2:], level.shape[2:], strict=True)
        ]
        deepest = max(deepest, *strides)
        if (
            level.data_ptr() != image.data_ptr()
            and level.shape[1] >= _FEWEST_CHANNELS
            and min(strides) <= _COARSEST
        ):
            taps[min(strides)] = _Tap(name, level.shape[1])

    with torch.inference_mode(), ExitStack() as hooks:
        for name, module in network.named_modules():
            hook = module.register_forward_pre_hook(
                lambda module, given, name=name: note(name, module, given)
            )
            hooks.callback(hook.remove)
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
    if not taps:
        raise WeightsError(
            f"MONAI's {description.network}, as {description.source} describes it, has"
            " no inner map to read features from."
        )
    last = max(seen.index(tap.module) for tap in taps.values())
    return _Plan(
        dict(sorted(taps.items())),
        frozenset(seen[:last]),
        deepest,
        -(-6 * widest // image.shape[2:].numel()),
    )


def _swin_plan(network: nn.Module, plan: _Plan) -> _Plan:
    """Return the plan for a SwinUNETR's transformer alone: its hidden states."""
    first = int(network.patch_size)  # type: ignore[arg-type]
    width = int(network.get_submodule("swinViT").embed_dim)  # type: ignore[arg-type]
    taps = {first * 2**k: _Tap("swinViT", width * 2**k, output=k) for k in range(4)}
    return _Plan(taps, plan.needed, first**5, plan.live_channels)


def _reducer(width: int) -> nn.Conv3d:
    """Make the 1x1x1 convolution that projects a wide map on fixed random axes.

    At right angles to each other.
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
    """Return the order of our axes (to Inferior, Posterior, Left) in an orientation.

    The tensor dims to flip after.
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
