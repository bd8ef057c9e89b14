"""Run the frozen encoder over a scan."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from napari_strata.cancellation import raise_if_cancelled
from napari_strata.deprecated import moved_names
from napari_strata.encoder.custom_network import open_encoder
from napari_strata.encoder.memory import kept_pages
from napari_strata.encoder.network import Encoder, pick_device
from napari_strata.errors import GeometryError
from napari_strata.preprocess.body import body_mask, magnified
from napari_strata.preprocess.intensity import (
    WorkingGrid,
    choose_grid,
    encoder_intensity,
    prepare_intensity,
    resample,
)
from napari_strata.settings import ProposeSettings
from napari_strata.volume import Geometry, Progress, Volume, no_progress

_CHANNELS_AT_ONCE = 64
"""Full-resolution float32 channels in memory at once during a forward pass.

The features themselves are not counted. With this value the default grid of 6 million
voxels, padded, runs in one pass at the default memory. Two tiles with their halos would
be 1.7 times the work.
"""
CODES = 8
"""Channels that hold the scan's own intensity as soft codes.

Each code is largest where the intensity equals its centre.
"""


_CODE_LENGTH = 2.0
"""Length of a voxel's intensity codes; each level of features has length 1."""
_CODE_SMOOTHING = 0.7
"""Gaussian sigma that smooths the codes, in voxels or in mm, whichever is less."""


@dataclass(frozen=True, slots=True, eq=False)
class ScanFeatures:
    """Features on a scan's own grid, or on a box of it.

    Parameters
    ----------
    data : (channel, z, y, x) float32 array
        Intensity codes, then all levels, finest first.
    box : tuple of 3 slices
        The part of the scan that `data` covers.
    geometry : Geometry
        Geometry of the whole scan.
    """

    data: NDArray[np.float32]
    box: tuple[slice, slice, slice]
    geometry: Geometry


Places = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True, slots=True, eq=False)
class FeatureMap:
    """The encoder's features and the intensity over the bounding box of a scan's body.

    Parameters
    ----------
    levels : tuple of (z', y', x', channel) float32 tensors
        Features on the padded grid, one map per decoder level, finest first.
    strides : tuple of int
        Voxels of the working grid per voxel of each level.
    intensity : (z, y, x) float32 array
        Intensity in [0, 1] on the working grid, bias corrected and slightly smoothed.
    grid : WorkingGrid
        The box of the scan that is covered, and the grid of the finest level (without
        padding).
    shape_zyx : tuple of 3 int
        Shape of the scan.
    """

    levels: tuple[Tensor, ...]
    strides: tuple[int, ...]
    intensity: NDArray[np.float32]
    grid: WorkingGrid
    shape_zyx: tuple[int, int, int]

    @property
    def n_channels(self) -> int:
        """Number of channels: intensity codes and all levels."""
        return CODES + sum(level.shape[-1] for level in self.levels)

    def at_level(self, number: int) -> NDArray[np.float32]:
        """Return one level interpolated to the working grid: (z, y, x, channel)."""
        level = self.levels[number]
        z, y, x = self.grid.shape_zyx
        if self.strides[number] > 1:
            moved = level.permute(3, 0, 1, 2)[None]
            factor = float(self.strides[number])
            level = F.interpolate(
                moved, scale_factor=factor, mode="trilinear", align_corners=False
            )[0].permute(1, 2, 3, 0)
        return level[:z, :y, :x].contiguous().numpy()

    def inner_level(
        self, number: int
    ) -> tuple[NDArray[np.float32], tuple[Places, ...]]:
        """Return one level without padding, and the scan voxels at its voxel centres.

        The level is (z', y', x', channel). Scan voxels are given as one array of indices
        per axis. If a centre lies between two voxels of the scan, there are two such
        triples, one for either side, so that what is read there is not biased to one.
        """
        stride, level = self.strides[number], self.levels[number]
        z, y, x = (max(1, n // stride) for n in self.grid.shape_zyx)
        found = []
        for lean in (-1e-6, 1e-6):
            axes = []
            for n, part, whole in zip(
                (z, y, x), self.grid.box, self.grid.shape_zyx, strict=True
            ):
                middle = (
                    (np.arange(n) + 0.5) * stride * (part.stop - part.start) / whole
                )
                axes.append(
                    np.clip(
                        part.start + np.floor(middle + lean).astype(int),
                        part.start,
                        part.stop - 1,
                    )
                )
            found.append((axes[0], axes[1], axes[2]))
        same = all(
            np.array_equal(one, other) for one, other in zip(*found, strict=True)
        )
        return level[:z, :y, :x].contiguous().numpy(), tuple(
            found[:1] if same else found
        )

    def read_at(self, number: int, places: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return one level interpolated at points of the scan, (n, channel) float32.

        Parameters
        ----------
        number : int
            The level, 0 the finest.
        places : (n, 3) array
            Points in voxels of the scan (z, y, x).
        """
        level = self.levels[number]
        size = (
            np.array(level.shape[:3])
            * self.strides[number]
            / np.array(self.grid.shape_zyx)
        )
        start, extent = (
            np.array([s.start for s in self.grid.box]),
            np.array(self.grid.box_shape),
        )
        share = (np.asarray(places) + 0.5 - start) / extent / size
        where = torch.from_numpy(
            (2 * share - 1).astype(np.float32)[:, ::-1].copy()
        ).view(1, -1, 1, 1, 3)
        found = F.grid_sample(
            level.permute(3, 0, 1, 2)[None],
            where,
            mode="bilinear",
            padding_mode="border",
            align_corners=False,
        )
        return np.ascontiguousarray(found[0, :, :, 0, 0].T.numpy())

    @property
    def data(self) -> NDArray[np.float32]:
        """Intensity codes and all levels on the working grid, (channel, z, y, x)."""
        return np.concatenate(
            [
                intensity_codes(self.intensity),
                *(
                    np.moveaxis(self.at_level(i), -1, 0)
                    for i in range(len(self.levels))
                ),
            ]
        )

    def on(
        self, volume: Volume, box: tuple[slice, slice, slice] | None = None
    ) -> ScanFeatures:
        """Resample the features to the scan's own grid, or to a box of it.

        They are 0 outside the bounding box of the body.

        Parameters
        ----------
        volume : Volume
            The scan that was embedded.
        box : tuple of 3 slices, optional
            Part of the scan, in its voxels (z, y, x).

        Raises
        ------
        GeometryError
            If `volume` does not have the shape of the embedded scan.
        """
        if volume.data.shape != self.shape_zyx:
            raise GeometryError(
                f"The features belong to a scan of shape {self.shape_zyx}, not"
                f" {volume.data.shape}. Embed this scan first."
            )
        wanted = box or (slice(None), slice(None), slice(None))
        bounds = [s.indices(n)[:2] for s, n in zip(wanted, self.shape_zyx, strict=True)]
        axes = []
        for (start, stop), cover in zip(bounds, self.grid.box, strict=True):
            place = (np.arange(start, stop) + 0.5 - cover.start) / (
                cover.stop - cover.start
            )
            axes.append(
                torch.from_numpy(
                    np.where((place > 0) & (place < 1), 2 * place - 1, -9.0).astype(
                        np.float32
                    )
                )
            )
        z, y, x = torch.meshgrid(*axes, indexing="ij")
        where = torch.stack([x, y, z], dim=-1)[None]
        known = (where[0] > -5).all(-1)

        def bring(maps: Tensor) -> Tensor:
            return F.grid_sample(
                maps[None],
                where,
                mode="bilinear",
                padding_mode="border",
                align_corners=False,
            )[0]

        data = np.zeros((self.n_channels, *known.shape), np.float32)
        intensity = bring(torch.from_numpy(self.intensity)[None])[0].numpy()
        data[:CODES] = intensity_codes(intensity) * known.numpy()
        first = CODES
        for number, level in enumerate(self.levels):
            found = bring(torch.from_numpy(self.at_level(number)).permute(3, 0, 1, 2))
            data[first : first + level.shape[-1]] = torch.where(
                known, found, torch.zeros(())
            ).numpy()
            first += level.shape[-1]
        along_z, along_y, along_x = (slice(start, stop) for start, stop in bounds)
        return ScanFeatures(data, (along_z, along_y, along_x), volume.geometry)


def intensity_codes(intensity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return soft codes (code, z, y, x) of an intensity (z, y, x) in [0, 1].

    The codes of a voxel have length 2, as much as the four levels of features together.
    A linear classifier can select a range of intensity from them.
    """
    centers = np.linspace(0.0, 1.0, CODES, dtype=np.float32)
    codes = np.empty((CODES, *intensity.shape), np.float32)
    for code, center in zip(codes, centers, strict=True):
        np.exp(-0.5 * ((intensity - center) / np.float32(0.12)) ** 2, out=code)
    codes *= np.float32(_CODE_LENGTH) / np.sqrt(
        np.einsum("czyx,czyx->zyx", codes, codes)
    )
    return codes


def embed(
    volume: Volume,
    *,
    settings: ProposeSettings | None = None,
    device: str = "auto",
    weights: Path | None = None,
    on_progress: Progress = no_progress,
) -> FeatureMap:
    """Compute a learned feature for every voxel of the body in a scan.

    Parameters
    ----------
    volume : Volume
        The scan.
    settings : ProposeSettings, optional
        `working_spacing_mm` and `memory_gb` are used.
    device : {"auto", "cpu", "cuda"}
        Where the encoder runs.
    weights : Path, optional
        Another encoder than the shipped one; see `open_encoder`.
    on_progress : callable
        Called as (done, total, stage); it may raise `Cancelled`.

    Returns
    -------
    FeatureMap
        8 intensity codes and four levels of 12 channels on the working grid (other
        weights may have others).

    Examples
    --------
    >>> features = strata.embed(volume, device="cpu")
    >>> features.n_channels
    56
    >>> features.on(volume).data.shape  # on the scan's own grid
    (56, 24, 24, 24)
    """
    chosen = settings or ProposeSettings()
    inside = body_mask(volume)
    seen, _ = magnified(volume, inside)
    grid = choose_grid(inside, seen, chosen)
    intensity = encoder_intensity(
        prepare_intensity(seen, inside, chosen), inside, volume.modality
    )
    return embed_intensity(
        intensity,
        grid,
        open_encoder(weights),
        settings=chosen,
        device=device,
        on_progress=on_progress,
    )


def embed_intensity(
    intensity: NDArray[np.float32],
    grid: WorkingGrid,
    encoder: Encoder,
    *,
    settings: ProposeSettings,
    device: str = "auto",
    on_progress: Progress = no_progress,
) -> FeatureMap:
    """Compute the features of a scan whose intensity is already mapped to [0, 1].

    See `embed`.

    Parameters
    ----------
    intensity : (z, y, x) float32 array
        Intensity on the scan's own grid, from `preprocess.encoder_intensity`.
    grid : WorkingGrid
        The box of the scan to cover, and the voxel size.
    encoder : Encoder
        The frozen network.
    """
    image = resample(np.ascontiguousarray(intensity[grid.box]), grid.shape_zyx)
    padded = np.pad(
        image, [(0, -n % encoder.multiple_of) for n in image.shape], mode="edge"
    )
    target = pick_device(device)
    if isinstance(encoder, nn.Module):
        encoder.to(target)
    sizes = [
        (*(n // k for n in padded.shape), channels)
        for k, channels in zip(encoder.strides, encoder.channels, strict=True)
    ]
    levels = tuple(torch.empty(size, dtype=torch.float32) for size in sizes)
    slabs = list(_slabs(padded.shape, encoder, settings.memory_gb))
    with torch.inference_mode(), kept_pages(), _cancellable_layers(encoder):
        for number, (outer, inner) in enumerate(slabs):
            on_progress(number, len(slabs), "encoding")
            tile = torch.from_numpy(padded[outer[0] : outer[1]])[None, None].to(
                target, memory_format=torch.channels_last_3d
            )
            for k, level, part in zip(
                encoder.strides, levels, encoder(tile), strict=True
            ):
                start, stop = (inner[0] - outer[0]) // k, (inner[1] - outer[0]) // k
                level[inner[0] // k : inner[1] // k] = (
                    part[0, :, start:stop].permute(1, 2, 3, 0).cpu()
                )
    on_progress(len(slabs), len(slabs), "encoding")
    sigma = [_CODE_SMOOTHING / max(1.0, spacing) for spacing in grid.spacing_zyx_mm]
    smooth = ndimage.gaussian_filter(image, sigma, truncate=3.0)
    return FeatureMap(
        levels,
        encoder.strides,
        smooth,
        grid,
        (intensity.shape[0], intensity.shape[1], intensity.shape[2]),
    )


@contextmanager
def _cancellable_layers(encoder: Encoder) -> Generator[None]:
    """Check for cancellation before every layer inside the block.

    A slab of a large scan takes half a minute, too long for one check per slab.
    """
    network: object = encoder
    parts = (
        network.modules()
        if isinstance(network, nn.Module)
        and not isinstance(network, torch.jit.ScriptModule)
        else ()
    )
    layers = [part for part in parts if next(part.children(), None) is None]
    hooks = [
        layer.register_forward_pre_hook(lambda _layer, _args: raise_if_cancelled())
        for layer in layers
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _slabs(
    shape: tuple[int, ...], encoder: Encoder, memory_gb: float
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield as few equal slabs of z as fit into memory, with and without their halo.

    Each is ((outer start, outer stop), (inner start, inner stop)).
    """
    unit = encoder.multiple_of
    halo = -(-encoder.halo_vox // unit) * unit
    plane = (
        shape[1] * shape[2] * 4 * getattr(encoder, "live_channels", _CHANNELS_AT_ONCE)
    )
    room = memory_gb * 1e9 / plane
    most = shape[0] // unit
    count = next(
        (
            n
            for n in range(1, most)
            if -(-most // n) * unit + min(n - 1, 2) * halo <= room
        ),
        max(1, most),
    )
    step = -(-most // count) * unit
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        yield (max(0, start - halo), min(shape[0], stop + halo)), (start, stop)


__getattr__ = moved_names("encoder.embed")
