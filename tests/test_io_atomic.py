"""Outputs appear whole or not at all."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import napari_strata as strata
from napari_strata.errors import WriteError
from napari_strata.io.atomic import Together
from napari_strata.io.files import atomic_path, hash_file
from napari_strata.volume import Geometry, Segmentation, default_regions


def noisy_labels() -> strata.Segmentation:
    labels = np.random.default_rng(0).integers(0, 250, (24, 32, 40)).astype(np.uint8)
    return Segmentation(
        labels,
        default_regions(range(1, 250)),
        Geometry.from_spacing((24, 32, 40), (1, 1, 1)),
    )


def test_the_file_appears_only_when_the_block_is_done(tmp_path: Path) -> None:
    target = tmp_path / "table.NII.gz"
    target.write_text("old")
    with atomic_path(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".NII.gz")
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failing_block_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")

    def stop_half_way() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_new_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("x")
    with atomic_path(tmp_path / "lent.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "lent.txt").stat().st_mode == (
        tmp_path / "plain.txt"
    ).stat().st_mode


@pytest.mark.parametrize(
    "name", ["labels.nii.gz", "labels.nii", "labels.nrrd", "labels.mha", "labels.mgz"]
)
def test_a_missing_folder_is_named_and_not_made(tmp_path: Path, name: str) -> None:
    with pytest.raises(WriteError, match="does not exist"):
        strata.write(noisy_labels(), tmp_path / "out" / name)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_hold_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match="is a file, not a folder"):
        strata.write(noisy_labels(), tmp_path / "file" / "labels.nii.gz")
    (tmp_path / "taken.nii").mkdir()
    with pytest.raises(WriteError, match="a folder has this name"):
        strata.write(noisy_labels(), tmp_path / "taken.nii")
    with pytest.raises(WriteError, match=r"must end in \.nii\.gz, \.nii"):
        strata.write(noisy_labels(), tmp_path / "labels.png")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="permissions do not bind root: run the tests as another user",
)
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(WriteError, match="no permission"):
        strata.write(noisy_labels(), tmp_path / "labels.nii.gz")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
@pytest.mark.parametrize(
    "name", ["labels.nii.gz", "labels.nii", "labels.nrrd", "labels.mha", "labels.mgz"]
)
def test_running_out_of_space_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    import resource

    (tmp_path / name).write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(WriteError) as caught:
            strata.write(noisy_labels(), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)
    assert (tmp_path / name).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert capfd.readouterr() == ("", "")


def test_a_table_that_cannot_be_written_keeps_the_old_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.nii").write_text("old")
    (tmp_path / "labels.json").mkdir()
    with pytest.raises(WriteError, match=r"labels\.json: a folder has this name"):
        strata.write(noisy_labels(), tmp_path / "labels.nii")
    assert (tmp_path / "labels.nii").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "labels.json",
        "labels.nii",
    ]


def test_a_hash_knows_both_halves_of_a_scan(tmp_path: Path) -> None:
    for first, second, header in [
        ("a.hdr", "a.img", b"x"),
        ("b.mhd", "b.raw", b"NDims = 3\nElementDataFile = b.raw\n"),
    ]:
        (tmp_path / first).write_bytes(header)
        (tmp_path / second).write_bytes(b"voxels")
        before = hash_file(tmp_path / first)
        assert before == hash_file(tmp_path / first)
        (tmp_path / second).write_bytes(b"others")
        assert hash_file(tmp_path / first) != before
    (tmp_path / "c.nii").write_bytes(b"abc")
    assert (
        hash_file(tmp_path / "c.nii")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_no_file_gets_its_name_where_the_disk_does_not_take_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b.csv").write_text("old")
    flushed: list[int] = []

    def full_at_the_second(number: int) -> None:
        flushed.append(number)
        if len(flushed) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_at_the_second)

    def write_three() -> None:
        with Together() as together:
            for one in ("a.json", "b.csv", "c.txt"):
                together.file(tmp_path / one).write_text("new")

    with pytest.raises(WriteError, match=r"b\.csv: the disk is full"):
        write_three()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("b.csv", "old")
    ]


@pytest.mark.parametrize("name", ["a.json", "c.txt"])
@pytest.mark.parametrize("links", [True, False])
def test_where_one_of_three_cannot_get_its_name_the_others_are_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, name: str
) -> None:
    (tmp_path / "a.json").write_text("old")
    rename = os.replace

    def refused(source: Path, target: Path) -> None:
        if Path(target).name == name and Path(source).suffix != ".before":
            raise OSError(errno.EACCES, "no")
        rename(source, target)

    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "replace", refused)
    if not links:
        monkeypatch.setattr(os, "link", no_links)

    def write_three() -> None:
        with Together() as together:
            for one in ("a.json", "b.csv", "c.txt"):
                together.file(tmp_path / one).write_text("new")

    with pytest.raises(
        WriteError, match=rf"{name}: permission was denied.*Nothing was replaced"
    ):
        write_three()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [
        ("a.json", "old")
    ]
    monkeypatch.setattr(os, "replace", rename)
    write_three()
    assert sorted((path.name, path.read_text()) for path in tmp_path.iterdir()) == [
        (n, "new") for n in ("a.json", "b.csv", "c.txt")
    ]


def test_an_output_that_is_a_link_stays_one_and_what_it_leads_to_is_written(
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    (store / "old").write_text("old")
    (tmp_path / "a.csv").symlink_to(store / "old")
    (tmp_path / "b.csv").symlink_to("store/new")
    with Together() as together:
        together.file(tmp_path / "a.csv").write_text("1")
        together.file(tmp_path / "b.csv").write_text("2")
    assert [
        (path.read_text(), path.is_symlink())
        for path in (tmp_path / "a.csv", tmp_path / "b.csv")
    ] == [("1", True), ("2", True)]
    assert sorted((path.name, path.read_text()) for path in store.iterdir()) == [
        ("new", "2"),
        ("old", "1"),
    ]
    for name, target, why in (
        ("c.csv", "c.csv", "leads to itself"),
        ("d.csv", "gone/x", "where there is no folder"),
    ):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(WriteError, match=why), atomic_path(tmp_path / name):
            pass
