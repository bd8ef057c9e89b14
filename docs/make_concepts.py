"""Draw the pictures of docs/concepts/index.md: one slice of a head, from the scan to the tissues.

python docs/make_concepts.py docs/images/concepts.png

The head is the MNI152 T1 template from the nilearn package.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from nilearn.datasets import load_mni152_template
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import napari_strata as strata
from napari_strata.proposal.proposal import Proposal
from napari_strata.volume import Segmentation

Picture = NDArray[np.uint8]

SLICE_MM = 18.0
"""Height of the slice above the middle of the template.

It goes through the lateral ventricles.
"""
SCALE = 2
"""Pixels of the picture for a voxel."""
DETAIL = 3
"""The detail shows this part of each axis, enlarged by as much."""
MARGIN_VOX = 4
TITLE_PX = 26
OPACITY = 0.55


def draw(proposal: Proposal) -> Image.Image:
    """Return six panels: scan, supervoxels, regions, finer regions, tissues, confidence."""
    volume = proposal.volume
    index = round(float(volume.geometry.voxel_from_world([0.0, 0.0, SLICE_MM])[0]))
    part = (index, *around(proposal.tissues(2).labels[index] > 0))
    grey = grey_picture(volume.data[part].astype(float))
    supervoxels = proposal.supervoxels[part]
    body = proposal.tissues(2).labels[part] > 0
    sure = np.where(body, proposal.confidence[supervoxels], 0)
    rows, columns = (slice(n // 3, n // 3 + n // DETAIL) for n in grey.shape[:2])
    panels = {
        "The scan": grey,
        "Supervoxels, a detail": outlined(
            grey[rows, columns], supervoxels[rows, columns]
        ),
        "26 connected regions": coloured(grey, proposal.regions(26), part),
        "100 connected regions": coloured(grey, proposal.regions(100), part),
        "8 tissues": coloured(grey, proposal.tissues(8), part),
        "Confidence, dark to bright": heat(sure),
    }
    panels = {title: enlarged(picture, grey.shape) for title, picture in panels.items()}
    titled = [with_title(picture, title) for title, picture in panels.items()]
    return Image.fromarray(np.vstack([np.hstack(titled[:3]), np.hstack(titled[3:])]))


def grey_picture(plane: NDArray[np.floating]) -> Picture:
    """Return a slice as RGB."""
    low, high = np.percentile(plane, (1, 99.8))
    bright = np.clip((plane - low) / (high - low), 0, 1)
    return np.repeat((255 * bright).astype(np.uint8)[..., None], 3, axis=-1)


def around(body: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Return the part of a slice that holds the body, with a margin."""
    rows, columns = (np.flatnonzero(body.any(axis=axis)) for axis in (1, 0))
    return (
        slice(max(0, rows[0] - MARGIN_VOX), rows[-1] + MARGIN_VOX),
        slice(max(0, columns[0] - MARGIN_VOX), columns[-1] + MARGIN_VOX),
    )


def outlined(grey: Picture, labels: NDArray[np.integer]) -> Picture:
    """Return a part of the slice with every border between labels.

    One pixel wide when enlarged.
    """
    size = SCALE * DETAIL
    large = np.kron(labels, np.ones((size, size), labels.dtype))
    edge = np.zeros(large.shape, bool)
    edge[1:] |= large[1:] != large[:-1]
    edge[:, 1:] |= large[:, 1:] != large[:, :-1]
    picture = np.kron(grey, np.ones((size, size, 1), np.uint8))
    picture[edge] = (255, 170, 0)
    return picture


def coloured(
    grey: Picture, segmentation: Segmentation, part: tuple[int, slice, slice]
) -> Picture:
    """Return the slice with each region in its own colour."""
    labels = segmentation.labels[part]
    table = np.zeros((int(segmentation.labels.max()) + 1, 3))
    for region in segmentation.regions:
        table[region.id] = region.color
    mixed = (1 - OPACITY) * grey + OPACITY * table[labels]
    return np.where(labels[..., None] > 0, mixed, grey).astype(np.uint8)


def heat(sure: NDArray[np.floating]) -> Picture:
    """Return confidence as colours: black outside the body, dark blue at 0.5, yellow at 1."""
    stops = np.array([(30, 40, 110), (60, 150, 150), (250, 230, 90)], float)
    place = np.linspace(0.5, 1, len(stops))
    colours = np.stack([np.interp(sure, place, stops[:, k]) for k in range(3)], axis=-1)
    return np.where(sure[..., None] > 0, colours, 0).astype(np.uint8)


def enlarged(picture: Picture, shape: tuple[int, ...]) -> Picture:
    """Return a picture of the size that all panels have."""
    size = (shape[1] * SCALE, shape[0] * SCALE)
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.NEAREST))


def with_title(picture: Picture, title: str) -> Picture:
    """Return a panel with a line of text above it."""
    panel = Image.new("RGB", (picture.shape[1], picture.shape[0] + TITLE_PX))
    panel.paste(Image.fromarray(picture), (0, TITLE_PX))
    font = ImageFont.load_default(18)
    ImageDraw.Draw(panel).text((8, 3), title, fill=(255, 255, 255), font=font)
    return np.asarray(panel)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", type=Path, help="PNG file to write")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mni152.nii.gz"
        load_mni152_template(resolution=1).to_filename(path)
        picture = draw(strata.propose(strata.read(path)))
    picture.quantize(192).save(arguments.picture, optimize=True)


if __name__ == "__main__":
    main()
