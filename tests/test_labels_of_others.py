"""Labels as other programs leave them.

Read right with a word on what was done, or refused by the first thing that is wrong.
"""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

import napari_strata as strata
from napari_strata.cli.command_line import main
from napari_strata.errors import ChoiceError, ReadError
from napari_strata.volume import Region

AFFINE = np.array([[2.0, 0, 0, -10], [0, 0, 3, 5], [0, -2.5, 0, 7], [0, 0, 0, 1]])
SHAPE = (6, 7, 5)


def truth(*ids: int) -> NDArray[np.int64]:
    """Give labels (i, j, k) at no mirrored place."""
    labels = np.zeros(SHAPE, np.int64)
    for n, value in enumerate(ids or (1, 2, 3)):
        labels[1 + n, 1 : 4 + n, 1:3] = value
    return labels


TRUTH = truth()
ONE_HOT = np.stack([value == TRUTH for value in (1, 2, 3)], axis=-1)


def save(
    path: Path, data: NDArray[np.generic], affine: NDArray[np.float64] = AFFINE
) -> Path:
    nib.save(nib.Nifti1Image(data, affine, dtype=data.dtype), path)
    return path


def places(
    labels: NDArray[np.generic], affine: NDArray[np.float64]
) -> dict[int, set[tuple[float, ...]]]:
    """Give the places in mm of every label, whatever the order of the axes."""
    ids = [int(value) for value in np.unique(labels) if value]
    return {
        i: {
            tuple(p)
            for p in (
                np.argwhere(labels == i) @ affine[:3, :3].T + affine[:3, 3]
            ).round(4)
            + 0.0
        }
        for i in ids
    }


def is_read(
    path: Path,
    expected: NDArray[np.generic],
    affine: NDArray[np.float64] = AFFINE,
    **how: int,
) -> None:
    found = strata.read_labels(path, **how)
    assert places(found.labels, found.geometry.affine) == places(expected, affine)


def with_values(
    dtype: str, value: float, other: float | None = None
) -> NDArray[np.generic]:
    data = TRUTH.astype(dtype)
    data[4, 6, 3] = value
    data[0, 0, 4] = value if other is None else other
    return data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            with_values("f4", 1.25),
            (
                r"holds 1\.25 at voxel \(4, 6, 3\) and 1 more such value, .*whole"
                r" numbers from 0 up"
            ),
        ),
        (with_values("f4", 1.0012, 0), r"holds 1\.0012 at voxel \(4, 6, 3\),"),
        (
            with_values("f4", np.nan),
            r"holds NaN at voxel .* if NaN stands for its background, set it to 0",
        ),
        (with_values("f8", np.inf), "holds inf at voxel"),
        (
            with_values("i2", -1),
            r"holds -1 at voxel .* if -1 stands for its background, set it to 0",
        ),
        (
            with_values("f4", 2.0**32),
            "holds 4294967296 at voxel .* ids go up to 4294967295",
        ),
        (with_values("i8", 2**33), "holds 8589934592 at voxel"),
        (
            np.where(ONE_HOT, 0.8, 0.1).astype("f4"),
            r"probabilities \(0\.1 at voxel \(0, 0, 0\) of volume 0\).*argmax",
        ),
        (
            np.stack([TRUTH, TRUTH], axis=-1).astype("u1"),
            r"2 volumes of labels.*--index 0\.\.1",
        ),
    ],
)
def test_what_are_no_labels_are_refused_by_the_first_bad_value(
    tmp_path: Path, data: NDArray[np.generic], says: str
) -> None:
    path = save(tmp_path / "labels.nii", data)
    with pytest.raises(ReadError, match=says) as told:
        strata.read_labels(path)
    assert str(path) in str(told.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (TRUTH + (TRUTH > 0) * np.float32(5e-5), "up to 5e-05 off whole numbers"),
        (TRUTH * np.float64(1 + 3.3e-4), "off whole numbers"),
        (-1e-4 * (TRUTH == 0).astype("f4") + TRUTH, "off whole numbers"),
        (ONE_HOT.astype("u1"), "volumes 0 to 2 are labels 1 to 3"),
        (
            ONE_HOT.astype("f4")[..., None, :] * np.float32(0.9995),
            "volumes 0 to 2 are labels 1 to 3",
        ),
        (
            np.concatenate([(TRUTH == 0)[..., None], ONE_HOT], axis=-1).astype("u1"),
            "volume 0 is taken for the background",
        ),
        (ONE_HOT * np.array([1, 2, 3], "i2"), "each with one label of its own"),
        (TRUTH[..., None, None].astype("u2"), ""),
    ],
)
def test_dust_and_one_hot_are_taken_with_a_word(
    tmp_path: Path,
    data: NDArray[np.generic],
    says: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    is_read(save(tmp_path / "labels.nii", data), TRUTH)
    assert says in caplog.text
    assert bool(says) == bool(caplog.records)


def test_volumes_that_overlap_are_counted_and_one_of_several_is_chosen(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    over = ONE_HOT.copy()
    over[1, 1, 1:3, 2] = True
    path = save(tmp_path / "over.nii", over.astype("u1"))
    expected = np.where(over[..., 2], 3, TRUTH)
    is_read(path, expected)
    assert "2 voxels lie in several volumes; the last one has them" in caplog.text
    is_read(path, (TRUTH == 2).astype(int), index=1)
    with pytest.raises(ChoiceError, match="no volume 3"):
        strata.read_labels(path, index=3)
    save(tmp_path / "time.nii", np.stack([TRUTH * 0, TRUTH], axis=-1).astype("u1"))
    assert (
        main(
            [
                "convert",
                str(tmp_path / "time.nii"),
                "--index",
                "1",
                "-o",
                str(tmp_path / "one.nii"),
            ]
        )
        == 0
    )
    is_read(tmp_path / "one.nii", TRUTH)


def test_floats_saved_under_an_integer_header_are_whole_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = truth(1, 2, 104)
    header = nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE).header
    nib.save(
        nib.Nifti1Image(labels.astype(float), AFFINE, header), tmp_path / "scaled.nii"
    )
    assert not np.array_equal(nib.load(tmp_path / "scaled.nii").get_fdata(), labels)
    is_read(tmp_path / "scaled.nii", labels)
    assert "off whole numbers" in caplog.text
    nib.save(
        nib.Nifti1Image(truth(1, 2, 2035).astype(float), AFFINE, header),
        tmp_path / "coarse.nii",
    )
    with pytest.raises(
        ReadError,
        match=r"holds \S+ at voxel .* as integers, without a scale \(scl_slope\)",
    ):
        strata.read_labels(tmp_path / "coarse.nii")
    raw = nib.Nifti1Image(truth(614454276, 6, 8).astype(np.int32), AFFINE)
    raw.header["scl_slope"], raw.header["scl_inter"] = 1, 1
    data = bytearray(raw.to_bytes())
    struct.pack_into("<2f", data, 112, 1, 1)
    (tmp_path / "large.nii").write_bytes(data)
    # float32 would give 614454272
    is_read(tmp_path / "large.nii", truth(614454276, 6, 8) + 1)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mgz", ".seg.nrrd"])
@pytest.mark.parametrize("highest", [255, 256, 65536, 2**31 - 1, 2**31, 2**32 - 1])
def test_a_format_holds_an_id_or_says_that_it_cannot(
    tmp_path: Path, suffix: str, highest: int, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = truth(highest, 2)
    given, made = (
        save(tmp_path / "given.nii", labels.astype(np.uint32)),
        tmp_path / f"made{suffix}",
    )
    code = main(["convert", str(given), "-o", str(made)])
    if suffix == ".mgz" and highest >= 2**31:
        assert (code, made.exists(), (tmp_path / "made.json").exists()) == (
            2,
            False,
            False,
        )
        assert (
            f"MGH holds ids up to {2**31 - 1}, and the labels go up to {highest}"
            in capsys.readouterr().err
        )
        return
    assert code == 0
    is_read(made, labels)
    if suffix in (".nii.gz", ".mgz"):
        np.testing.assert_array_equal(np.asanyarray(nib.load(made).dataobj), labels)


def test_refine_refuses_large_ids_before_it_proposes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = save(
        tmp_path / "scan.nii", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    )
    labels = save(tmp_path / "allen.nii", truth(614454277, 997).astype(np.uint32))
    monkeypatch.setattr(
        "napari_strata.cli.commands.refine._propose",
        lambda *_: pytest.fail("it proposed"),
    )
    assert (
        main(
            [
                "refine",
                str(scan),
                "--from-labels",
                str(labels),
                "-o",
                str(tmp_path / "out.nii"),
            ]
        )
        == 2
    )
    assert f"{labels}: Label 614454277 is too large" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["allen.nii", "scan.nii"]


OURS = {
    "format": "strata-labels-1",
    "labels": "labels.nii",
    "regions": [{"id": 1, "name": "spleen", "color": [1, 2, 3]}],
}


@pytest.mark.parametrize(
    "text",
    [
        b"{not json",
        b"",
        b"[1, 2, 3]",
        b"null",
        b'{"regions": {"liver": 1}}',
        b'{"regions": [1, 2]}',
        b'{"regions": [{"id": 1, "name": "liver"}]}',
        b'{"regions": [{"id": 1e999, "name": "liver", "color": [1, 2, 3]}]}',
        b'{"regions": [{"id": 1, "name": "liver", "color": "red"}]}',
        '{"name": "Größe"}'.encode("latin-1"),
        '{"name": "Größe"}'.encode("utf-16"),
        b"[" * 100_000,
    ],
)
def test_json_of_another_program_is_ignored_with_a_note_and_left_alone(
    tmp_path: Path,
    text: bytes,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, beside = (
        save(tmp_path / "labels.nii", TRUTH.astype("u1")),
        tmp_path / "labels.json",
    )
    beside.write_bytes(text)
    is_read(path, TRUTH)
    assert "labels.json beside it holds no region table of Strata's" in caplog.text
    assert main(["convert", str(path), "-o", str(tmp_path / "labels.nrrd")]) == 2
    assert (
        "is not Strata's and would be replaced. Choose another name"
        in capsys.readouterr().err
    )
    assert (beside.read_bytes(), (tmp_path / "labels.nrrd").exists()) == (text, False)


def test_our_own_table_is_read_in_any_encoding_and_told_where_it_is_damaged(
    tmp_path: Path,
) -> None:
    path, beside = (
        save(tmp_path / "labels.nii", TRUTH.astype("u1")),
        tmp_path / "labels.json",
    )
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        beside.write_bytes(json.dumps(OURS).encode(encoding))
        assert strata.read_labels(path).regions[0] == Region(1, "spleen", (1, 2, 3))
    row = OURS["regions"][0]
    for damaged in ([row, row], [{**row, "color": [300, 0, 0]}], [{**row, "id": 1.5}]):
        beside.write_text(json.dumps({**OURS, "regions": damaged}))
        with pytest.raises(ReadError, match="region table"):
            strata.read_labels(path)


def test_names_inside_a_nifti_are_read_and_other_extensions_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = "".join(
        f'<Label Key="{key}" Red="{red}" Green="0.5" Blue="0"'
        f' Alpha="1"><![CDATA[{name}]]></Label>\n'
        for key, red, name in (
            (1, 0.2, "spleen"),
            (2, 1, "Milz & Größe"),
            (9, 0, "absent"),
        )
    )
    inner = (
        "<VolumeInformation"
        f' Index="0"><LabelTable>{table}</LabelTable></VolumeInformation>'
    )
    xml = f'<?xml version="1.0"?><CaretExtension>{inner}</CaretExtension>'
    for cls, name in (
        (nib.Nifti1Image, "one.nii.gz"),
        (nib.Nifti2Image, "two.nii"),
        (nib.Nifti1Pair, "pair.hdr"),
    ):
        image = cls(TRUTH.astype("u1"), AFFINE)
        image.header.extensions.append(nib.nifti1.Nifti1Extension(0, xml.encode()))
        nib.save(image, tmp_path / name)
        found = strata.read_labels(tmp_path / name).regions
        assert found[:2] == (
            Region(1, "spleen", (51, 128, 0)),
            Region(2, "Milz & Größe", (255, 128, 0)),
        )
        assert [region.id for region in found] == [1, 2, 3]
    assert not caplog.records
    image = nib.Nifti1Image(TRUTH.astype("u1"), AFFINE)
    image.header.extensions.append(nib.nifti1.Nifti1Extension(4, b"<AFNI_attributes/>"))
    nib.save(image, tmp_path / "afni.nii")
    is_read(tmp_path / "afni.nii", TRUTH)
    assert "an extension (AFNI) that is not read" in caplog.text


def mgh(
    path: Path,
    data: NDArray[np.generic],
    kind: int,
    stored: str,
    *,
    version: int = 1,
    good_ras: int = 1,
    after: bytes = b"",
) -> Path:
    frames = data.shape[3] if data.ndim == 4 else 1
    head = struct.pack(">7i", version, *data.shape[:3], frames, kind, 0) + struct.pack(
        ">h", good_ras
    )
    head += (
        struct.pack(">3f", 2, 2.5, 3)
        + struct.pack(">9f", -1, 0, 0, 0, 0, -1, 0, 1, 0)
        + struct.pack(">3f", 1, 2, 3)
    )
    path.write_bytes(
        gzip.compress(
            head.ljust(284, b"\0") + data.astype(stored).tobytes(order="F") + after
        )
    )
    return path


def test_mgh_types_flags_frames_and_colour_tables(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = b"".join(
        struct.pack(">2i", key, len(name) + 1)
        + name
        + b"\0"
        + struct.pack(">4i", *color, 0)
        for key, name, color in (
            (1, b"Left-Thing", (1, 2, 3)),
            (17, b"absent", (9, 9, 9)),
        )
    )
    table = (
        struct.pack(">i", 1)
        + struct.pack(">3i", -2, 100, 4)
        + b"lut\0"
        + struct.pack(">i", 2)
        + rows
    )
    after = struct.pack(">5f", *range(5)) + struct.pack(">iq", 31, 8) + bytes(8) + table
    affine = nib.load(mgh(tmp_path / "plain.mgz", TRUTH, 0, "u1")).affine
    for kind, stored in ((0, "u1"), (1, ">i4"), (3, ">f4"), (4, ">i2"), (10, ">u2")):
        path = mgh(
            tmp_path / f"t{kind}.mgz", TRUTH, kind, stored, version=257, after=after
        )
        is_read(path, TRUTH, affine)
        assert strata.read_labels(path).regions[0] == Region(1, "Left-Thing", (1, 2, 3))
    values = np.arange(np.prod(SHAPE)).reshape(SHAPE) * 300
    assert (
        strata.read(mgh(tmp_path / "u2.mgz", values, 10, ">u2")).data.max()
        == values.max()
        > 2**15
    )
    assert not caplog.records
    is_read(mgh(tmp_path / "hot.mgz", ONE_HOT, 0, "u1"), TRUTH, affine)
    lost = strata.read(mgh(tmp_path / "lost.mgz", values, 10, ">u2", good_ras=0))
    assert "left and right are a guess" in lost.notes[0]
    np.testing.assert_array_equal(
        lost.geometry.file.affine,
        nib.load(mgh(tmp_path / "l.mgz", TRUTH, 4, ">i2", good_ras=0)).affine,
    )
    with pytest.raises(ReadError, match=r"type 5 \(bits\)|bits \(type 5\)"):
        strata.read(mgh(tmp_path / "bits.mgz", TRUTH, 5, "u1"))


def nrrd(path: Path, fields: str, data: NDArray[np.generic] | None = None) -> Path:
    data = (
        np.arange(np.prod(SHAPE), dtype="<i2").reshape(SHAPE) if data is None else data
    )
    kind = "uchar" if data.dtype == np.uint8 else "short"
    sizes = " ".join(map(str, data.shape))
    head = (
        f"NRRD0005\ntype: {kind}\ndimension: {data.ndim}\nsizes: {sizes}\nendian:"
        f" little\nencoding: raw\n{fields}\n\n"
    )
    path.write_bytes(head.encode() + data.tobytes(order="F"))
    return path


DIRECTIONS = "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)"


@pytest.mark.parametrize(
    ("unit", "mm"),
    [
        ("um", 1e-3),
        ("µm", 1e-3),
        ("Microns", 1e-3),
        ("nm", 1e-6),
        ("cm", 10),
        ("m", 1000),
        ("feet", 304.8),
        ("mm", 1),
        ("", 1),
    ],
)
def test_nrrd_lengths_become_mm(tmp_path: Path, unit: str, mm: float) -> None:
    plain = strata.read(nrrd(tmp_path / "plain.nrrd", f"space: RAS\n{DIRECTIONS}"))
    found = strata.read(
        nrrd(
            tmp_path / "unit.nrrd",
            f'space: RAS\nspace units: "{unit}" "{unit}" "{unit}"\n{DIRECTIONS}',
        )
    )
    np.testing.assert_allclose(
        found.geometry.affine[:3], plain.geometry.affine[:3] * mm, rtol=1e-12
    )
    assert bool(found.notes) == (mm != 1)
    mixed = strata.read(
        nrrd(tmp_path / "mixed.nrrd", f'spacings: 2 3 4\nunits: "mm" "mm" "{unit}"')
    )
    np.testing.assert_allclose(mixed.spacing_zyx_mm, (4 * mm, 3, 2), rtol=1e-12)


def test_what_nrrd_and_metaimage_leave_open_is_told(tmp_path: Path) -> None:
    for fields, says in (
        (f"space: scanner-xyz\n{DIRECTIONS}", "NRRD space scanner-xyz"),
        (f"space dimension: 3\n{DIRECTIONS}", "no NRRD space"),
        ("spacings: 2 3 nan", "voxel size along every axis"),
        (
            f'space: RAS\nspace units: "pixel" "pixel" "pixel"\n{DIRECTIONS}',
            '"pixel", which is no unit',
        ),
        (f"space: RAS\n{DIRECTIONS}\nold min: 0\nold max: 1", "quantized"),
    ):
        assert says in " ".join(strata.read(nrrd(tmp_path / "a.nrrd", fields)).notes)
    for fields, says in (
        (f"space: RAS\nspace units: um um um\n{DIRECTIONS}", "in quotes"),
        (
            f'space: RAS\nspace units: "mm" "mm" "ms"\n{DIRECTIONS}',
            '"ms", which is no length',
        ),
        (
            "space: RAS\nspace directions: (nan,nan,nan) (0,3,0) (0,0,4)",
            "no direction for every axis",
        ),
    ):
        with pytest.raises(strata.StrataError, match=says):
            strata.read(nrrd(tmp_path / "a.nrrd", fields))
    voxels = np.arange(np.prod(SHAPE), dtype="<i2").tobytes()
    for fields, says, size in (
        (
            "ElementSpacing = 2 3 4\nDistanceUnits = um\n",
            "0.001 mm",
            (0.004, 0.003, 0.002),
        ),
        ("ElementSize = 2 3 4\n", "", (4, 3, 2)),
        ("", "no ElementSpacing", (1, 1, 1)),
        (
            "ElementSpacing = 1 1 1\nElementToIntensityFunctionSlope = 2\n",
            "not applied",
            (1, 1, 1),
        ),
        (
            "ElementSpacing = 1 1 1\nAnatomicalOrientation = LPI\n",
            "disagree",
            (1, 1, 1),
        ),
    ):
        head = (
            "ObjectType = Image\nNDims = 3\nDimSize = 6 7 5\nElementType ="
            f" MET_SHORT\n{fields}ElementDataFile = LOCAL\n"
        )
        (tmp_path / "a.mha").write_bytes(head.encode() + voxels)
        found = strata.read(tmp_path / "a.mha")
        assert says in " ".join(found.notes)
        assert bool(says) == bool(found.notes)
        np.testing.assert_allclose(found.spacing_zyx_mm, size)


@pytest.mark.parametrize(
    ("space", "signs"),
    [("RAST", (1, 1)), ("left-anterior-superior-time", (-1, 1)), ("LPST", (-1, -1))],
)
def test_an_nrrd_over_time_is_no_mirror_image(
    tmp_path: Path, space: str, signs: tuple[int, int]
) -> None:
    data = np.arange(2 * np.prod(SHAPE), dtype="<i2").reshape(*SHAPE, 2)
    directions = (
        "space directions: (2,0,0,0) (0,3,0,0) (0,0,4,0) (0,0,0,1)\nspace origin:"
        " (10,20,30,0)"
    )
    fields = f"kinds: space space space time\nspace: {space}\n{directions}"
    affine = strata.read(
        nrrd(tmp_path / "a.nrrd", fields, data), index=1
    ).geometry.file.affine
    np.testing.assert_array_equal(
        affine,
        np.diag([*signs, 1, 1])
        @ [[2, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]],
    )


def test_layers_of_slicer_and_one_hot_in_nrrd(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lps = np.diag([-2.0, -3, 4, 1])
    lps[:3, 3] = (-10, -20, 30)
    for kinds, axes, order in (
        ("list domain domain domain", "none ", (3, 0, 1, 2)),
        ("domain domain domain vector", " none", (0, 1, 2, 3)),
    ):
        directions = "(2,0,0) (0,3,0) (0,0,4)"
        given = (
            f"kinds: {kinds}\nspace: LPS\nspace directions:"
            f" {axes if axes[0] == 'n' else ''}{directions}{axes if axes[0] == ' ' else ''}"
        )
        path = nrrd(
            tmp_path / "hot.nrrd",
            f"{given}\nspace origin: (10,20,30)",
            ONE_HOT.astype("u1").transpose(order),
        )
        is_read(path, TRUTH, lps)
    caplog.clear()
    image = sitk.GetImageFromArray(
        ONE_HOT.transpose(2, 1, 0, 3).astype(np.uint8), isVector=True
    )
    names = {f"Segment{n}_Name": f"part {n}" for n in range(3)} | {
        f"Segment{n}_ID": f"S{n}" for n in range(3)
    }
    layers = {f"Segment{n}_Layer": str(n) for n in range(3)} | {
        f"Segment{n}_LabelValue": "1" for n in range(3)
    }
    for name, fields in (("plain.nrrd", names | layers), ("old.seg.nrrd", names)):
        for key, value in fields.items():
            image.SetMetaData(key, value)
        sitk.WriteImage(image, str(tmp_path / name))
        is_read(tmp_path / name, TRUTH, np.diag([-1.0, -1, 1, 1]))
        assert [
            region.name for region in strata.read_labels(tmp_path / name).regions
        ] == ["part 0", "part 1", "part 2"]
    dust = sitk.GetImageFromArray(
        ONE_HOT.transpose(2, 1, 0, 3) * np.float32(1 + 1e-4), isVector=True
    )
    for key in image.GetMetaDataKeys():
        dust.SetMetaData(key, image.GetMetaData(key))
    sitk.WriteImage(dust, str(tmp_path / "dust.seg.nrrd"))
    is_read(tmp_path / "dust.seg.nrrd", TRUTH, np.diag([-1.0, -1, 1, 1]))
    assert "off whole numbers" in caplog.text
    caplog.clear()
    image.SetMetaData("Segmentation_MasterRepresentation", "Fractional labelmap")
    sitk.WriteImage(image, str(tmp_path / "fraction.seg.nrrd"))
    with pytest.raises(ReadError, match="fractional segments"):
        strata.read_labels(tmp_path / "fraction.seg.nrrd")
    assert not caplog.records


def mutated(
    path: Path, change: Callable[[bytearray], None], codes: tuple[int, int] = (1, 1)
) -> Path:
    image = nib.Nifti1Image(
        np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), AFFINE
    )
    image.set_qform(AFFINE, codes[0])
    image.set_sform(AFFINE, codes[1])
    data = bytearray(image.to_bytes())
    change(data)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: struct.pack_into("<12f", b, 280, *[0.0] * 12), "the qform is used"),
        (lambda b: struct.pack_into("<f", b, 280, np.nan), "the qform is used"),
        (lambda b: b.__setitem__(slice(296, 312), b[280:296]), "the qform is used"),
        (
            lambda b: struct.pack_into("<3f", b, 256, 5, 5, 5),
            "qform is no rotation; the sform is used",
        ),
        (
            lambda b: struct.pack_into("<f", b, 268, np.nan),
            "qform is no rotation; the sform is used",
        ),
    ],
)
def test_one_good_form_is_enough_and_labels_carry_it(
    tmp_path: Path, change: Callable[[bytearray], None], says: str
) -> None:
    scan = strata.read(mutated(tmp_path / "scan.nii", change))
    assert says in scan.notes[0]
    np.testing.assert_allclose(scan.geometry.file.affine, AFFINE, atol=1e-5)
    made = strata.write(
        strata.Segmentation((scan.data > 9).astype(np.uint8), (), scan.geometry),
        tmp_path / "labels.nii",
    )
    np.testing.assert_allclose(nib.load(made).affine, AFFINE, atol=1e-5)
    image = sitk.ReadImage(str(made))
    np.testing.assert_allclose(image.GetSpacing(), (2, 2.5, 3), atol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), (10, -5, 7), atol=1e-5)


def test_labels_of_one_slice_and_labels_an_affine_off_by_rounding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = save(
        tmp_path / "scan.nii", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    )
    thin = TRUTH * (np.arange(5) == 2)
    is_read(
        save(
            tmp_path / "thin.nii",
            thin[..., 2:3].astype("u1"),
            AFFINE @ [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]],
        ),
        thin,
    )
    off = AFFINE + np.array([[1e-3, 0, 0, 1e-3], *[[0.0] * 4] * 3])
    labels = save(tmp_path / "off.nii", TRUTH.astype("u1"), off)
    for given, expected, says in (
        ("thin.nii", thin, ""),
        (labels.name, TRUTH, "taken for the same grid"),
    ):
        made = tmp_path / f"on_{given}"
        assert (
            main(
                ["convert", str(tmp_path / given), "--like", str(scan), "-o", str(made)]
            )
            == 0
        )
        np.testing.assert_array_equal(np.asanyarray(nib.load(made).dataobj), expected)
        told = capsys.readouterr().err
        assert says in told
        assert "of this patient" not in told
