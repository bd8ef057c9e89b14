"""Run the frozen encoder over a scan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_strata.deprecated import moved_names
from napari_strata.encoder.interpolation import (
    Axes,
    interpolate_at,
    interpolate_grid,
    upsampled_axes,
)
from napari_strata.encoder.runtime.base import Runtime, map_shape
from napari_strata.encoder.runtime.select import open_runtime
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
    levels : tuple of (z', y', x', channel) float32 arrays
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

    levels: tuple[NDArray[np.float32], ...]
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
        level, stride = self.levels[number], self.strides[number]
        z, y, x = self.grid.shape_zyx
        if stride == 1:
            return np.ascontiguousarray(level[:z, :y, :x])
        return interpolate_grid(level, upsampled_axes((z, y, x), stride))

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
        return np.ascontiguousarray(level[:z, :y, :x]), tuple(
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
        return interpolate_at(level, share * level.shape[:3] - 0.5)

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
        axes: list[NDArray[np.float64]] = []
        outside = []
        for (start, stop), cover, n in zip(
            bounds, self.grid.box, self.grid.shape_zyx, strict=True
        ):
            share = (np.arange(start, stop) + 0.5 - cover.start) / (
                cover.stop - cover.start
            )
            axes.append(share * n - 0.5)
            outside.append((share <= 0) | (share >= 1))
        at: Axes = (axes[0], axes[1], axes[2])
        z, y, x = outside
        known = ~(z[:, None, None] | y[:, None] | x)
        data = np.zeros((self.n_channels, *known.shape), np.float32)
        intensity = interpolate_grid(self.intensity[..., None], at)[..., 0]
        data[:CODES] = intensity_codes(intensity) * known
        first = CODES
        for number, level in enumerate(self.levels):
            found = interpolate_grid(self.at_level(number), at)
            stop = first + level.shape[-1]
            data[first:stop] = np.moveaxis(found * known[..., None], -1, 0)
            first = stop
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
    runtime: str = "auto",
    on_progress: Progress = no_progress,
) -> FeatureMap:
    """Compute a learned feature for every voxel of the body in a scan.

    Parameters
    ----------
    volume : Volume
        The scan.
    settings : ProposeSettings, optional
        `working_spacing_mm` and `memory_gb` are used.
    device : {"auto", "cpu", "cuda", "mps"}
        Where the encoder runs.
    weights : Path, optional
        Another encoder than the shipped one; see `open_encoder`.
    runtime : {"auto", "openvino", "torch"}
        What runs it; see `open_runtime`.
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
        open_runtime(weights, runtime=runtime, device=device),
        settings=chosen,
        on_progress=on_progress,
    )


def embed_intensity(
    intensity: NDArray[np.float32],
    grid: WorkingGrid,
    runtime: Runtime,
    *,
    settings: ProposeSettings,
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
    runtime : Runtime
        The encoder, ready to run.
    """
    image = resample(np.ascontiguousarray(intensity[grid.box]), grid.shape_zyx)
    padded = np.pad(
        image, [(0, -n % runtime.multiple_of) for n in image.shape], mode="edge"
    )
    slabs = list(_slabs(padded.shape, runtime, settings.memory_gb))
    levels: tuple[NDArray[np.float32], ...] = ()
    for number, (outer, inner) in enumerate(slabs):
        on_progress(number, len(slabs), "encoding")
        maps = runtime.encode(padded[outer[0] : outer[1]])
        if len(slabs) == 1:
            levels = maps
            break
        z, y, x = padded.shape
        levels = levels or tuple(
            np.empty(map_shape((z, y, x), k, channels), np.float32)
            for k, channels in zip(runtime.strides, runtime.channels, strict=True)
        )
        for k, level, part in zip(runtime.strides, levels, maps, strict=True):
            start, stop = (inner[0] - outer[0]) // k, (inner[1] - outer[0]) // k
            level[inner[0] // k : inner[1] // k] = part[start:stop]
    on_progress(len(slabs), len(slabs), "encoding")
    sigma = [_CODE_SMOOTHING / max(1.0, spacing) for spacing in grid.spacing_zyx_mm]
    smooth = ndimage.gaussian_filter(image, sigma, truncate=3.0)
    return FeatureMap(
        levels,
        runtime.strides,
        smooth,
        grid,
        (intensity.shape[0], intensity.shape[1], intensity.shape[2]),
    )


def _slabs(
    shape: tuple[int, ...], runtime: Runtime, memory_gb: float
) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield as few equal slabs of z as fit into memory, with and without their halo.

    Each is ((outer start, outer stop), (inner start, inner stop)).
    """
    unit = runtime.multiple_of
    halo = -(-runtime.halo_vox // unit) * unit
    plane = shape[1] * shape[2] * 4 * runtime.live_channels
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
