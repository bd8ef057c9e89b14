import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import napari_strata as strata
from napari_strata import cancellation
from napari_strata.cli import main
from napari_strata.encoder.custom_network import open_encoder
from napari_strata.encoder.identity import weights_hash
from napari_strata.encoder.interpolation import (
    interpolate_at,
    interpolate_grid,
    upsampled_axes,
)
from napari_strata.encoder.network import NetworkShape, StrataEncoder
from napari_strata.encoder.runtime import openvino_runtime, select
from napari_strata.encoder.runtime.openvino_runtime import (
    OpenVinoRuntime,
    read_description,
)
from napari_strata.encoder.runtime.select import exported_model, open_runtime
from napari_strata.encoder.runtime.torch_runtime import TorchRuntime
from napari_strata.encoder.weights import write_weights
from napari_strata.errors import Cancelled, SettingsError, WeightsError

torch = pytest.importorskip("torch")
pytest.importorskip("openvino")

WITHOUT_TORCH = """
import sys
for name in ("torch", "monai"):
    sys.modules[name] = None
import socket
def refuse(*_arguments, **_named):
    raise AssertionError("a socket was opened")
socket.socket.connect = socket.getaddrinfo = refuse
from napari_strata.cli import main
code = main(sys.argv[1:])
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
assert "sklearn" not in sys.modules
sys.exit(code)
"""


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).random((32, 48, 16), np.float32)


@pytest.fixture(scope="module")
def sample_scan():
    return Path(nib.__file__).parent / "tests" / "data" / "anatomical.nii"


@pytest.fixture
def own_weights(tmp_path):
    torch.manual_seed(0)
    encoder = StrataEncoder(NetworkShape(width=4, channels=3)).eval()
    path = tmp_path / "own.safetensors"
    write_weights(encoder, path, {})
    return path


def test_the_shipped_model_was_exported_from_the_shipped_weights():
    description = read_description(exported_model(None))
    assert description.weights_sha256 == weights_hash()
    files = [exported_model(None), exported_model(None).with_suffix(".bin")]
    assert sum(file.stat().st_size for file in files) < 4e6


def test_openvino_and_torch_give_the_same_features(image):
    ours = open_runtime(runtime="openvino")
    peer = TorchRuntime(open_encoder(None), device="cpu")
    for one, other in zip(ours.encode(image), peer.encode(image), strict=True):
        assert one.shape == other.shape
        assert np.abs(one - other).max() < 1e-4


def test_features_do_not_depend_on_threads(image):
    one, two = (
        OpenVinoRuntime(exported_model(None), threads=n).encode(image) for n in (1, 2)
    )
    for a, b in zip(one, two, strict=True):
        assert np.abs(a - b).max() < 1e-6


def test_labels_of_both_runtimes_agree_on_a_real_scan(sample_scan):
    volume = strata.read(sample_scan)
    labels = [
        strata.propose(volume, runtime=runtime, device="cpu").tissues(4).labels
        for runtime in ("openvino", "torch")
    ]
    assert (labels[0] == labels[1]).mean() > 0.99


def test_a_proposal_needs_no_torch_and_opens_no_socket(tmp_path, sample_scan):
    output = tmp_path / "labels.nii.gz"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WITHOUT_TORCH,
            "propose",
            str(sample_scan),
            "-o",
            str(output),
            "--tissues",
            "4",
            "--quiet",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert output.is_file()


def test_without_torch_messages_say_what_helps(monkeypatch, own_weights):
    monkeypatch.setattr(
        select.importlib.util, "find_spec", lambda name: None if name == "torch" else 1
    )
    with pytest.raises(SettingsError, match="strata export-encoder"):
        open_runtime(own_weights)
    with pytest.raises(SettingsError, match="pip install torch monai"):
        open_runtime(device="cuda")
    with pytest.raises(WeightsError, match="there is no"):
        open_runtime(own_weights.with_name("none.safetensors"))
    monkeypatch.setattr(select, "has_openvino", lambda: False)
    with pytest.raises(SettingsError, match="pip install openvino"):
        open_runtime()


def test_openvino_that_cannot_be_loaded_is_named(monkeypatch):
    def broken(_path):
        raise ImportError("libopenvino.so: no such file")

    monkeypatch.setattr(select, "read_description", broken)
    with pytest.raises(SettingsError, match=r"libopenvino\.so"):
        open_runtime(runtime="openvino")
    assert open_runtime(device="cpu").name == "torch"


def test_auto_takes_what_is_there(monkeypatch, own_weights):
    assert open_runtime(device="cpu").name == "openvino"
    assert open_runtime(own_weights, device="cpu").name == "torch"
    monkeypatch.setattr(select, "has_openvino", lambda: False)
    assert open_runtime(device="cpu").name == "torch"
    with pytest.raises(SettingsError, match="pip install openvino"):
        open_runtime(runtime="openvino")


def test_own_weights_run_in_openvino_once_exported(own_weights, image):
    with pytest.raises(SettingsError, match="strata export-encoder"):
        open_runtime(own_weights, runtime="openvino")
    assert main(["export-encoder", str(own_weights)]) == 0
    runtime = open_runtime(own_weights, device="cpu")
    assert runtime.name == "openvino"
    peer = TorchRuntime(open_encoder(own_weights), device="cpu")
    for one, other in zip(runtime.encode(image), peer.encode(image), strict=True):
        assert np.abs(one - other).max() < 1e-4
    torch.manual_seed(1)
    write_weights(
        StrataEncoder(NetworkShape(width=4, channels=3)).eval(), own_weights, {}
    )
    assert open_runtime(own_weights, device="cpu").name == "torch"


def test_openvino_runs_on_the_cpu_only():
    with pytest.raises(SettingsError, match="--runtime torch"):
        open_runtime(runtime="openvino", device="cuda")


@pytest.mark.parametrize("damage", [b"", b"<net/>", None])
def test_a_damaged_model_says_what_to_do(tmp_path, damage):
    model = tmp_path / "m.xml"
    if damage is not None:
        model.write_bytes(damage)
        model.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(WeightsError, match="strata export-encoder"):
        OpenVinoRuntime(model)


def test_a_running_model_can_be_cancelled(monkeypatch, image):
    monkeypatch.setattr(cancellation, "_PAUSE_S", -1.0)
    monkeypatch.setattr(openvino_runtime, "_CHECK_EVERY_MS", 1)
    reports = []

    def stop_at_second(done, total, stage):
        reports.append(stage)
        if len(reports) > 1:
            raise Cancelled("stopped")

    runtime = open_runtime(runtime="openvino")
    large = np.tile(image, (4, 2, 6))
    with (  # noqa: PT012
        pytest.raises(Cancelled),
        cancellation.progress_scope(stop_at_second) as report,
    ):
        report(0, 1, "encoding")
        runtime.encode(large)
    assert reports == ["encoding"] * 2
    assert runtime.encode(image)[0].shape == (*image.shape, 12)


def test_interpolation_agrees_with_torch():
    rng = np.random.default_rng(0)
    level = rng.random((5, 6, 7, 2), np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(level).permute(3, 0, 1, 2)[None],
        scale_factor=4.0,
        mode="trilinear",
        align_corners=False,
    )[0].permute(1, 2, 3, 0)
    axes = upsampled_axes((20, 24, 28), 4)
    assert interpolate_grid(level, axes) == pytest.approx(expected.numpy(), abs=1e-5)
    points = rng.uniform(-1, 7, (50, 3))
    single = [interpolate_grid(level, (p[:1], p[1:2], p[2:]))[0, 0, 0] for p in points]
    assert interpolate_at(level, points) == pytest.approx(np.array(single), abs=1e-5)
