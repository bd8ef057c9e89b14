"""Bootstrapped anatomies: real scans with the regions of their own proposals as labels.

No human label is involved. A cut of the region tree gives structures, a cut of the tissue
tree tissues. Patches are taken at random places, voxel sizes, rotations and warps, and
shown in the scan's own intensity or rendered anew by the synthesiser. Labels only need to
be roughly right: MASS (arXiv 2603.13660) trains on masks with a Dice of .07 to .15.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from napari_strata.encoder.pretraining.real_patches import WorkingScan, rerender
from napari_strata.errors import GeometryError, WeightsError
from napari_strata.preprocess.body import body_mask, magnified
from napari_strata.preprocess.intensity import choose_grid
from napari_strata.settings import ProposeSettings
from napari_strata.synthesis.anatomy import COMPARTMENTS, TISSUES, Anatomy
from napari_strata.synthesis.fields import Grid
from napari_strata.synthesis.synthesiser import Synthesiser, SyntheticScan
from napari_strata.volume import Volume

STRUCTURES, TISSUE_CLASSES = 250, 12
"""Cuts of the region and the tissue tree that are taken as labels.

250 is as many as uint8 holds; a patch shows a few dozen of them. Twelve tissues are about
what `auto` chooses on whole scans.
"""
COARSER_CUTS = (25, 60, 120)
"""Coarser cuts of the region tree, one of which is drawn for a patch instead."""
_MAX_PATCH_SHARE_OUTSIDE = 0.7
"""A patch with more air than this is drawn again at another place."""
_PLACES_TRIED = 4
_FIRST_SHAPE_COMPARTMENT = COMPARTMENTS.index("wrap")
"""Compartments from here on are those of abstract shapes: tissues are grouped at random."""
_WARP_MM, _WARP_LENGTH_MM = (0.0, 4.0), (20.0, 50.0)
"""Range of the amplitude and of the length of the smooth warp of a patch."""


@dataclass(frozen=True, slots=True, eq=False)
class BootstrappedScan:
    """A scan on its working grid, with its own regions and tissues as labels.

    Parameters
    ----------
    name : str
        For messages.
    scan : WorkingScan
        Its intensity.
    structures, tissues : (z, y, x) uint8 tensors
        Regions and tissues on the working grid, 0 outside the body.
    coarser : (cut, 256) uint8 array
        The region of each structure in coarser cuts of the same tree.
    """

    name: str
    scan: WorkingScan
    structures: Tensor
    tissues: Tensor
    coarser: NDArray[np.uint8]

    @classmethod
    def prepare(
        cls,
        volume: Volume,
        structures: NDArray[np.integer],
        tissues: NDArray[np.integer],
        coarser: Sequence[NDArray[np.integer]] = (),
        *,
        name: str = "scan",
        settings: ProposeSettings | None = None,
    ) -> BootstrappedScan:
        """Bring a scan and the labels of its proposal to the working grid.

        Parameters
        ----------
        volume : Volume
            The scan, (z, y, x).
        structures, tissues : (z, y, x) integer arrays
            Labels of the scan's voxels: at most 255 numbers, 0 is background.
        coarser : sequence of (z, y, x) integer arrays
            Coarser cuts, each of whose regions is a union of structures.
        name : str
            For messages.
        settings : ProposeSettings, optional
            Those of the proposal.

        Raises
        ------
        GeometryError
            If the scan has no body, or labels of another shape or with numbers above
            255.
        """
        chosen = settings or ProposeSettings()
        for labels in (structures, tissues, *coarser):
            if labels.shape != volume.data.shape or labels.max(initial=0) > 255:
                raise GeometryError(
                    f"Labels of {labels.shape} voxels up to {labels.max(initial=0)} do"
                    f" not fit a scan of {volume.data.shape}; at most 255 fit."
                )
        scan = WorkingScan.prepare(volume, _STEP_VOX, chosen)
        inside = body_mask(volume)
        grown, _ = magnified(volume, inside)
        grid = choose_grid(inside, grown, chosen)

        def on_grid(labels: NDArray[np.integer]) -> Tensor:
            part = torch.from_numpy(np.ascontiguousarray(labels[grid.box], np.uint8))
            small = F.interpolate(
                part[None, None], size=grid.shape_zyx, mode="nearest-exact"
            )[0, 0]
            pad = [
                width
                for have, now in zip(
                    reversed(scan.intensity.shape), reversed(small.shape), strict=True
                )
                for width in (0, have - now)
            ]
            return F.pad(small, pad)

        tables = np.zeros((len(coarser), 256), np.uint8)
        for table, labels in zip(tables, coarser, strict=True):
            table[structures.ravel()] = labels.ravel()
        return cls(name, scan, on_grid(structures), on_grid(tissues), tables)

    def save(self, path: Path) -> None:
        """Write it as a compressed .npz, a few megabytes.

        Intensity is stored in 16 bits.
        """
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            intensity=np.round(self.scan.intensity.numpy() * 65535).astype(np.uint16),
            structures=self.structures.numpy(),
            tissues=self.tissues.numpy(),
            coarser=self.coarser,
            spacing_mm=np.asarray(self.scan.spacing_mm),
            slices=np.asarray(
                [self.scan.is_ct, self.scan.thick_axis, self.scan.thickness]
            ),
        )
        part = path.with_suffix(".part")
        part.write_bytes(buffer.getvalue())
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> BootstrappedScan:
        """Read what `save` wrote. Nothing is unpickled.

        Raises
        ------
        WeightsError
            If the file is damaged or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {key: stored[key] for key in stored.files}
            is_ct, axis, thickness = arrays["slices"].tolist()
            z, y, x = arrays["spacing_mm"].tolist()
            intensity = arrays["intensity"].astype(np.float32) / 65535
            structures, tissues = arrays["structures"], arrays["tissues"]
            if not intensity.shape == structures.shape == tissues.shape:
                raise ValueError("arrays of different shapes")
            coarser = arrays["coarser"].astype(np.uint8).reshape(-1, 256)
        except (
            OSError,
            ValueError,
            KeyError,
            EOFError,
            zipfile.BadZipFile,
            zlib.error,
        ) as err:
            raise WeightsError(
                f"Cannot read the bootstrapped anatomy {path}: {err}. Delete it, and it"
                " is made again."
            ) from err
        scan = WorkingScan(
            torch.from_numpy(intensity),
            np.flatnonzero(structures),
            bool(is_ct),
            int(axis),
            float(thickness),
            (z, y, x),
        )
        return cls(
            path.stem,
            scan,
            torch.from_numpy(structures.astype(np.uint8)),
            torch.from_numpy(tissues.astype(np.uint8)),
            coarser,
        )


_STEP_VOX = 16
"""Working scans are padded to at least one step of the encoder."""


class BootstrappedPatches:
    """Patches of bootstrapped scans, in several views.

    Parameters
    ----------
    scans : sequence of BootstrappedScan
        At least one.
    own_intensity : float
        Chance that a view shows the scan's own intensity, not a rendering.
    """

    def __init__(
        self, scans: Sequence[BootstrappedScan], *, own_intensity: float = 0.5
    ) -> None:
        self.scans = tuple(scans)
        self.own_intensity = own_intensity

    def make_views(
        self, synthesiser: Synthesiser, seed: int, count: int
    ) -> tuple[tuple[SyntheticScan, ...], dict[int, Tensor]]:
        """Return views of one patch, and the views in the scan's own intensity.

        Parameters
        ----------
        synthesiser : Synthesiser
            Draws voxel sizes, contrasts and artefacts.
        seed : int
            The same seed gives the same views.
        count : int
            Number of views.

        Returns
        -------
        tuple of SyntheticScan
            They share the anatomy.
        dict of int to (z, y, x) float32 tensor
            By the number of a view: its intensity in [0, 1], to be used instead of the
            rendering.
        """
        rng = np.random.default_rng((seed, 1))
        source = self.scans[int(rng.integers(len(self.scans)))]
        drawing = _Drawing(source, rng)
        views = synthesiser.make_views(seed, count, draw=drawing)
        own: dict[int, Tensor] = {}
        for number in range(count):
            if rng.random() < self.own_intensity:
                own[number] = drawing.own_intensity(
                    views[0].image.shape, int(rng.integers(2**31))
                )
                views = tuple(
                    replace(view, clean_image_id=count) if at == number else view
                    for at, view in enumerate(views)
                )
        return views, own


class _Drawing:
    """Draws the labels of a bootstrapped scan on the grid of a patch.

    Called by the synthesiser like the formulas of heads and torsos. It remembers where
    the patch lies, so that the scan's own intensity can be read there.
    """

    def __init__(self, source: BootstrappedScan, rng: np.random.Generator) -> None:
        self.source = source
        self._rng = rng
        self._where: Tensor | None = None
        self._grid: Grid | None = None

    def __call__(self, grid: Grid) -> Anatomy:
        source, rng = self.source, self._rng
        warped = grid.warped(grid.uniform(*_WARP_MM), grid.uniform(*_WARP_LENGTH_MM))
        flips = rng.choice([-1.0, 1.0], 3)
        for _ in range(_PLACES_TRIED):
            center = np.unravel_index(
                rng.choice(source.scan.body), source.structures.shape
            )
            where = _places_in(source, warped, np.asarray(center, float), flips)
            structures = _read_nearest(source.structures, where)
            if float((structures == 0).float().mean()) < _MAX_PATCH_SHARE_OUTSIDE:
                break
        self._grid, self._where = grid, where
        tissues = _read_nearest(source.tissues, where)
        level = int(rng.integers(len(source.coarser) + 1))
        if level < len(source.coarser):
            table = torch.from_numpy(source.coarser[level].copy())
            structures = table[structures.long()]
        return _anatomy(structures, tissues, rng)

    def own_intensity(self, shape: Sequence[int], seed: int) -> Tensor:
        """Return the scan's intensity at the patch, with artefacts, (z, y, x) in [0, 1].

        `shape` is that of the patch; along axes that were drawn at half the voxel size
        every second voxel is taken.
        """
        where, grid, scan = self._where, self._grid, self.source.scan
        if where is None or grid is None:
            raise ValueError("Draw the labels before reading the intensity.")
        coarser = max(
            now / own for now, own in zip(grid.spacing_mm, scan.spacing_mm, strict=True)
        )
        found = _read_linear(scan.intensity, where, 2 if coarser > 1.5 else 1)
        steps = tuple(
            slice(None, None, 2 if fine > side else 1)
            for fine, side in zip(found.shape, shape, strict=True)
        )
        own = grid.every_second(
            tuple(axis for axis, step in enumerate(steps) if step.step == 2)
        ).drawing_from(torch.Generator().manual_seed(seed))
        return rerender(found[steps].contiguous(), own, scan)


def _places_in(
    source: BootstrappedScan,
    grid: Grid,
    center: NDArray[np.float64],
    flips: NDArray[np.float64],
) -> Tensor:
    """Return where a patch's voxels lie in a scan, (z, y, x, 3) as `grid_sample` has it."""
    sides = source.structures.shape
    axes = []
    for axis, along in enumerate((-grid.up, -grid.front, grid.left)):
        voxel = flips[axis] * along / source.scan.spacing_mm[axis] + center[axis]
        axes.append(2 * voxel / max(1, sides[axis] - 1) - 1)
    return torch.stack(axes[::-1], dim=-1)


def _read_nearest(labels: Tensor, where: Tensor) -> Tensor:
    """Return the labels at places of a scan; outside it 0."""
    return F.grid_sample(
        labels[None, None].float(),
        where[None],
        mode="nearest",
        padding_mode="zeros",
        align_corners=True,
    )[0, 0].to(torch.uint8)


def _read_linear(image: Tensor, where: Tensor, finer: int) -> Tensor:
    """Return the intensity at places of a scan; outside it that of its edge.

    Where the patch is coarser than the scan, each voxel is the mean of `finer`^3 places.
    """
    if finer > 1:
        places = where.permute(3, 0, 1, 2)[None]
        places = F.interpolate(
            places, scale_factor=finer, mode="trilinear", align_corners=False
        )
        where = places[0].permute(1, 2, 3, 0)
    found = F.grid_sample(
        image[None, None],
        where[None],
        mode="bilinear",
        padding_mode="border",
        align_corners=True,
    )
    return F.avg_pool3d(found, finer)[0, 0] if finer > 1 else found[0, 0]


def _anatomy(structures: Tensor, tissues: Tensor, rng: np.random.Generator) -> Anatomy:
    """Return labels as an anatomy: each structure with its most frequent tissue.

    Tissue classes of a scan have no names, so each gets the number of a random tissue.
    The synthesiser then gives it a random mean and texture.
    """
    count = np.zeros((256, 256), np.int64)
    np.add.at(count, (structures.numpy().ravel(), tissues.numpy().ravel()), 1)
    present = np.flatnonzero(count.sum(1))
    present = present[present > 0]
    number = np.zeros(256, np.uint8)
    number[present] = np.arange(1, len(present) + 1)
    classes = count[present].argmax(1) if len(present) else np.empty(0, np.int64)
    tissue_numbers = rng.permutation(np.arange(1, len(TISSUES)))
    compartments = rng.integers(_FIRST_SHAPE_COMPARTMENT, len(COMPARTMENTS), 256)
    known, index = np.unique(classes, return_inverse=True)
    chosen = tissue_numbers[np.arange(len(known)) % len(tissue_numbers)]
    return Anatomy(
        torch.from_numpy(number)[structures.long()],
        (0, *chosen[index].tolist()),
        (0, *compartments[known][index].tolist()),
        ("outside", *(f"region {one}" for one in present.tolist())),
        "shapes",
    )
