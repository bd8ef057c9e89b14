"""Networks that a user brings.

MONAI's run as encoders, and files that do not fit or would run code are refused.
"""

import json
import sys

import numpy as np
import pytest
import torch
from monai.networks import nets
from safetensors.torch import save_file

import napari_strata as strata
from napari_strata.cli.command_line import main
from napari_strata.encoder.custom_network import (
    CustomEncoder,
    open_encoder,
)
from napari_strata.encoder.description import read_description
from napari_strata.encoder.embed import embed_intensity
from napari_strata.encoder.identity import encoder_hash, weights_hash
from napari_strata.encoder.network import StrataEncoder
from napari_strata.encoder.runtime.torch_runtime import TorchRuntime
from napari_strata.encoder.weights import (
    write_weights,
)
from napari_strata.errors import WeightsError
from napari_strata.io.files import write_scan
from napari_strata.preprocess.intensity import working_grid
from napari_strata.settings import ProposeSettings
from phantoms import phantom_volume

SEGRESNET = {
    "init_filters": 8,
    "blocks_down": [1, 1, 1],
    "blocks_up": [1, 1],
    "in_channels": 1,
    "out_channels": 2,
}
BASIC = {
    "in_channels": 1,
    "out_channels": 2,
    "features": [4, 4, 8, 8, 8, 4],
    "norm": "batch",
}


def network(name, arguments):
    torch.manual_seed(1)
    spatial = {} if name == "SwinUNETR" else {"spatial_dims": 3}
    return getattr(nets, name)(**spatial, **arguments)


def describe(folder, name, arguments, weights="weights.pt", **more):
    path = folder / "encoder.json"
    path.write_text(
        json.dumps(
            {"network": name, "arguments": arguments, "weights": weights, **more}
        )
    )
    return path


def bring(folder, name, arguments, **more):
    torch.save(network(name, arguments).state_dict(), folder / "weights.pt")
    return describe(folder, name, arguments, **more)


@pytest.fixture(scope="module")
def segresnet(tmp_path_factory):
    return bring(tmp_path_factory.mktemp("segresnet"), "SegResNet", SEGRESNET)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    torch.save(
        network("SegResNet", SEGRESNET).state_dict(), folder / "models" / "model.pt"
    )
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    return folder


def write_config(folder, definition, **more):
    (folder / "configs" / "inference.json").write_text(
        json.dumps({"network_def": definition, **more})
    )
    return folder


@pytest.mark.parametrize(
    ("name", "arguments", "strides"),
    [
        ("BasicUNet", BASIC, (1, 2, 4, 8)),
        (
            "UNet",
            {
                "in_channels": 1,
                "out_channels": 2,
                "channels": [4, 8, 8],
                "strides": [2, 2],
            },
            (2, 2, 4, 4),
        ),
        ("SegResNet", {**SEGRESNET, "in_channels": 3}, (1, 2, 4, 4)),
        (
            "DynUNet",
            {
                "in_channels": 1,
                "out_channels": 2,
                "kernel_size": [[1, 3, 3], 3, 3],
                "strides": [1, [1, 2, 2], 2],
                "upsample_kernel_size": [[1, 2, 2], 2],
                "filters": [4, 16, 16],
            },
            (1, 2, 2, 2),
        ),
    ],
)
def test_monai_networks_give_four_maps_of_unit_length(
    tmp_path, name, arguments, strides
):
    encoder = open_encoder(bring(tmp_path, name, arguments))
    assert encoder.strides == strides
    assert max(encoder.channels) <= 12
    for shape in ((1, 1, 1), (1, 2, 3)):
        image = torch.rand(1, 1, *(n * encoder.multiple_of for n in shape))
        for stride, channels, level in zip(
            encoder.strides, encoder.channels, encoder(image), strict=True
        ):
            assert level.shape == (1, channels, *(n // stride for n in image.shape[2:]))
            assert torch.median(level.norm(dim=1)) == pytest.approx(1, abs=1e-3)


def test_the_same_file_gives_the_same_features_every_time(segresnet):
    image = torch.rand(1, 1, 16, 16, 16)
    first, again = open_encoder(segresnet), open_encoder(segresnet)
    assert all(
        torch.equal(a, b) for a, b in zip(first(image), again(image), strict=True)
    )


@pytest.mark.parametrize("orientation", ["RAS", "ASL"])
def test_maps_lie_on_the_scan_whatever_orientation_the_network_wants(
    tmp_path, orientation
):
    encoder = open_encoder(bring(tmp_path, "BasicUNet", BASIC, orientation=orientation))
    image = torch.full((1, 1, 32, 48, 64), 0.4)
    spot = image.clone()
    spot[..., 4:8, 36:40, 10:14] = 0.9
    for stride, plain, changed in zip(
        encoder.strides[:2], encoder(image), encoder(spot), strict=False
    ):
        change = (changed - plain).norm(dim=1)[0]
        where = [
            float(
                (
                    change.sum(dim=[a for a in range(3) if a != axis]) * torch.arange(n)
                ).sum()
                / change.sum()
            )
            * stride
            for axis, n in enumerate(change.shape)
        ]
        assert where == pytest.approx([6, 38, 12], abs=3)


def test_orientation_and_range_are_what_the_network_sees(tmp_path):
    as_ours = open_encoder(bring(tmp_path, "BasicUNet", BASIC, orientation="IPL"))
    turned = open_encoder(
        describe(tmp_path, "BasicUNet", BASIC, orientation="RAS", range=[-1, 1])
    )
    seen = turned._prepare(torch.arange(8.0).reshape(1, 1, 2, 2, 2) / 8)
    ours = as_ours._prepare(torch.arange(8.0).reshape(1, 1, 2, 2, 2) / 8)
    assert torch.equal(seen, ours.permute(0, 1, 4, 3, 2).flip(2, 3, 4) * 2 - 1)


def test_safetensors_and_names_with_a_trainers_prefix_give_the_same_features(
    tmp_path, segresnet
):
    state = network("SegResNet", SEGRESNET).state_dict()
    save_file(state, tmp_path / "plain.safetensors")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.model.{k}": v for k, v in state.items()}},
        tmp_path / "wrapped.pth",
    )
    image = torch.rand(1, 1, 16, 16, 16)
    expected = open_encoder(segresnet)(image)
    for weights in ("plain.safetensors", "wrapped.pth"):
        encoder = open_encoder(
            describe(tmp_path, "segresnet", SEGRESNET, weights=weights)
        )
        assert all(
            torch.equal(a, b) for a, b in zip(encoder(image), expected, strict=True)
        )


def test_a_toml_description_reads_as_json_does(tmp_path, segresnet):
    (tmp_path / "weights.pt").write_bytes(
        (segresnet.parent / "weights.pt").read_bytes()
    )
    path = tmp_path / "mine.toml"
    path.write_text(
        'network = "SegResNet"\nweights = "weights.pt"\nrange = [0.0,'
        " 1.0]\n[arguments]\ninit_filters = 8\nblocks_down = [1, 1, 1]\nblocks_up = [1,"
        " 1]\n"
    )
    assert open_encoder(path).report.missing == ()


def test_the_head_may_differ_because_features_do_not_need_it(tmp_path, segresnet):
    (tmp_path / "weights.pt").write_bytes(
        (segresnet.parent / "weights.pt").read_bytes()
    )
    encoder = open_encoder(
        describe(tmp_path, "SegResNet", {**SEGRESNET, "out_channels": 5})
    )
    assert encoder.report.missing == (
        "conv_final.2.conv.weight",
        "conv_final.2.conv.bias",
    )
    image = torch.rand(1, 1, 16, 16, 16)
    assert all(
        torch.equal(a, b)
        for a, b in zip(encoder(image), open_encoder(segresnet)(image), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "SegResNet",
            {**SEGRESNET, "init_filters": 16},
            r"the network has \(16, 1, 3, 3, 3\), the file \(8, 1, 3, 3, 3\)",
        ),
        ("SegResNet", {**SEGRESNET, "blocks_down": [1, 1, 2]}, "the file nothing"),
        ("BasicUNet", BASIC, "do not fit MONAI's BasicUNet"),
        (
            "SegResNet",
            {**SEGRESNET, "init_filter": 8},
            "cannot be made with the arguments .*init_filter",
        ),
        ("SegResNet", {**SEGRESNET, "spatial_dims": 2}, "cannot run on a 3D image"),
        ("ResNet", {}, "network 'ResNet'. Strata can run"),
        ("TorchVisionFCModel", {"pretrained": True}, "Strata can run"),
    ],
)
def test_what_does_not_fit_is_a_clear_error(
    tmp_path, segresnet, name, arguments, message
):
    (tmp_path / "weights.pt").write_bytes(
        (segresnet.parent / "weights.pt").read_bytes()
    )
    with pytest.raises(WeightsError, match=message):
        open_encoder(describe(tmp_path, name, arguments))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"weights": "no.pt"}, "not found at .*no.pt"),
        ({"weights": "encoder.json"}, "encoder.json"),
        ({"wieghts": "x"}, "'wieghts' that is not known"),
        ({"orientation": "RAR"}, "three letters"),
        ({"range": [1, 0]}, "two numbers"),
        ({"weights": 3}, "does not name its 'weights'"),
    ],
)
def test_a_description_with_a_mistake_is_a_clear_error(tmp_path, more, message):
    with pytest.raises(WeightsError, match=message):
        open_encoder(
            describe(
                tmp_path, "SegResNet", SEGRESNET, **{"weights": "weights.pt", **more}
            )
        )


@pytest.mark.parametrize("name", ["alone.pt", "alone.safetensors"])
def test_weights_without_a_description_are_told_to_bring_one(tmp_path, name):
    state = network("SegResNet", SEGRESNET).state_dict()
    (
        save_file(state, tmp_path / name)
        if name.endswith("safetensors")
        else torch.save(state, tmp_path / name)
    )
    with pytest.raises(WeightsError, match="does not say what network"):
        open_encoder(tmp_path / name)


@pytest.mark.parametrize("name", ["no.toml", "no.json", "no.safetensors"])
def test_a_file_that_is_not_there_is_a_clear_error(tmp_path, name):
    with pytest.raises(WeightsError, match=f"{name}"):
        open_encoder(tmp_path / name)
    with pytest.raises((WeightsError, FileNotFoundError)):
        encoder_hash(tmp_path / name)


class _Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path):
    torch.save({"state_dict": _Evil(tmp_path / "ran")}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match="runs no code"):
        open_encoder(describe(tmp_path, "SegResNet", SEGRESNET))
    assert not (tmp_path / "ran").exists()


def test_a_bundle_is_read_with_its_references_and_its_orientation(bundle):
    definition = {
        **SEGRESNET,
        "_target_": "SegResNet",
        "spatial_dims": 3,
        "out_channels": "@classes",
        "init_filters": "@sizes::first",
    }
    turn = {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Orientationd", "keys": ["image"], "axcodes": "LPS"}
        ],
    }
    more = {
        "classes": 2,
        "sizes": {"first": 8},
        "preprocessing": turn,
        "device": "$torch.device('cuda')",
    }
    encoder = open_encoder(write_config(bundle, definition, **more))
    assert encoder.description.network == "SegResNet"
    assert encoder.description.orientation == "LPS"
    assert encoder.report.missing == ()
    assert len(encoder_hash(bundle)) == 64


@pytest.mark.parametrize(
    "definition",
    [
        "$__import__('pathlib').Path('{ran}').touch()",
        {
            "_target_": "SegResNet",
            "init_filters": "$__import__('pathlib').Path('{ran}').touch() or 8",
        },
        {"_target_": "SegResNet", "init_filters": "@evil"},
        {"_target_": "SegResNet", "init_filters": "%evil"},
        {
            "_target_": "SegResNet",
            "act": {"_target_": "pathlib.Path.touch", "self": "{ran}"},
        },
        {"_target_": "pathlib.Path.touch", "self": "{ran}"},
        {"_target_": "monai.networks.nets.os.mkdir", "path": "{ran}"},
        {"_target_": "monai.networks.nets_evil.SegResNet"},
        {"_target_": "SegResNet", "_mode_": "callable"},
        {"_target_": "SegResNet", "init_filters": "@circle"},
        {"_target_": "SegResNet", "init_filters": "@nowhere::x"},
        {"init_filters": 8},
        [1, 2],
    ],
)
def test_a_bundle_that_needs_code_is_refused_and_nothing_runs(
    bundle, tmp_path, definition
):
    ran = tmp_path / "ran"
    text = json.dumps(
        {
            "network_def": definition,
            "evil": "$__import__('pathlib').Path('{ran}').touch()",
            "circle": "@circle",
        }
    )
    (bundle / "configs" / "inference.json").write_text(text.replace("{ran}", str(ran)))
    with pytest.raises(WeightsError, match=r"inference.json|Strata can run"):
        open_encoder(bundle)
    assert not ran.exists()


def test_a_folder_that_is_no_bundle_is_a_clear_error(tmp_path):
    with pytest.raises(WeightsError, match="no MONAI bundle"):
        open_encoder(tmp_path)


SWIN = {
    "in_channels": 1,
    "out_channels": 2,
    "feature_size": 12,
    "num_heads": [1, 1, 2, 2],
    "window_size": 3,
}


def test_self_supervised_swin_weights_fill_the_transformer_and_its_states_are_read(
    tmp_path,
):
    pytest.importorskip("einops")
    state = network("SwinUNETR", SWIN).swinViT.state_dict()
    saved = {
        f"module.{name.replace('mlp.linear', 'mlp.fc')}": value
        for name, value in state.items()
    }
    torch.save(
        {
            "epoch": 1,
            "state_dict": {**saved, "module.rotation_head.weight": torch.ones(4, 4)},
        },
        tmp_path / "weights.pt",
    )
    encoder = open_encoder(describe(tmp_path, "SwinUNETR", SWIN))
    assert encoder.report.part == "swinViT"
    assert len(encoder.report.loaded) == len(state)
    assert encoder.report.unused == ("rotation_head.weight",)
    assert (encoder.strides, encoder.multiple_of) == ((2, 2, 4, 8), 32)
    assert [level.shape[-1] for level in encoder(torch.rand(1, 1, 32, 32, 32))] == [
        16,
        16,
        8,
        4,
    ]
    with pytest.raises(WeightsError, match="do not fit MONAI's SwinUNETR"):
        open_encoder(describe(tmp_path, "SwinUNETR", {**SWIN, "feature_size": 24}))


def test_tiles_of_a_brought_network_cover_the_scan(tmp_path):
    encoder = open_encoder(bring(tmp_path, "BasicUNet", BASIC))
    assert isinstance(encoder, CustomEncoder)
    intensity = np.random.default_rng(0).random((96, 16, 16)).astype(np.float32)
    grid = working_grid(
        np.ones(intensity.shape, bool),
        (2.0, 2.0, 2.0),
        finest_mm=2.0,
        most_voxels=10**6,
    )
    whole = embed_intensity(
        intensity, grid, TorchRuntime(encoder), settings=ProposeSettings()
    )
    encoder.live_channels = 10**7
    stages = []
    tiled = embed_intensity(
        intensity,
        grid,
        TorchRuntime(encoder),
        settings=ProposeSettings(),
        on_progress=lambda done, total, stage: stages.append(total),
    )
    assert stages[-1] > 1
    for a, b in zip(whole.levels, tiled.levels, strict=True):
        assert float((a * b).sum(-1).mean()) > 0.99


def test_the_hash_follows_weights_and_description_and_is_ours_for_ours(tmp_path):
    path = bring(tmp_path, "BasicUNet", BASIC)
    first = encoder_hash(path)
    describe(tmp_path, "BasicUNet", BASIC, range=[0.0, 2.0])
    second = encoder_hash(path)
    torch.save(
        network("BasicUNet", {**BASIC, "out_channels": 3}).state_dict(),
        tmp_path / "weights.pt",
    )
    assert len({first, second, encoder_hash(path)}) == 3
    ours = tmp_path / "ours.safetensors"
    write_weights(StrataEncoder(), ours, {"step": 0})
    assert encoder_hash(ours) == weights_hash(ours)
    assert isinstance(open_encoder(ours), StrataEncoder)


def test_propose_takes_a_brought_encoder_and_the_sidecar_says_so(tmp_path, segresnet):
    volume = phantom_volume((24, 32, 36), (3.0, 2.0, 2.0))
    scan, out = (
        write_scan(
            strata.Volume(volume.data, volume.geometry, "mr"), tmp_path / "scan.nii.gz"
        ),
        tmp_path / "labels.nii.gz",
    )
    words = [
        "propose",
        str(scan),
        "-o",
        str(out),
        "--tissues",
        "5",
        "--supervoxels",
        "300",
        "--quiet",
        "--threads",
        "1",
    ]
    assert main([*words, "--encoder", str(segresnet)]) == 0
    sidecar = json.loads((tmp_path / "labels.json").read_text())
    assert sidecar["weights_sha256"] == encoder_hash(segresnet)
    assert sidecar["encoder"]["network"] == "SegResNet"
    assert len(sidecar["regions"]) == 5


def test_propose_with_an_encoder_that_does_not_fit_is_one_line(
    tmp_path, segresnet, capsys
):
    (tmp_path / "weights.pt").write_bytes(
        (segresnet.parent / "weights.pt").read_bytes()
    )
    path = describe(tmp_path, "SegResNet", {**SEGRESNET, "init_filters": 16})
    volume = phantom_volume((12, 16, 18), (6.0, 4.0, 4.0))
    scan = write_scan(
        strata.Volume(volume.data, volume.geometry, "mr"), tmp_path / "scan.nii.gz"
    )
    words = [
        "propose",
        str(scan),
        "-o",
        str(tmp_path / "l.nii.gz"),
        "--tissues",
        "5",
        "--quiet",
        "--threads",
        "1",
    ]
    assert main([*words, "--encoder", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "do not fit" in said
    assert not (tmp_path / "l.nii.gz").exists()


def turned_by(bundle, **turn):
    transforms = {"_target_": "Compose", "transforms": [{"keys": ["image"], **turn}]}
    definition = {**SEGRESNET, "_target_": "SegResNet", "spatial_dims": 3}
    return write_config(
        bundle, definition, preprocessing=transforms, codes=["L", "P", "S"]
    )


@pytest.mark.parametrize(
    "target",
    [
        "Orientationd",
        "monai.transforms.Orientationd",
        "monai.transforms.spatial.array.Orientation",
    ],
)
@pytest.mark.parametrize("codes", ["LPS", ["L", "P", "S"], "@codes"])
def test_a_bundles_orientation_is_read_however_it_is_written(bundle, target, codes):
    assert (
        read_description(turned_by(bundle, _target_=target, axcodes=codes)).orientation
        == "LPS"
    )


@pytest.mark.parametrize("codes", ["$'L' + 'PS'", "@nowhere", 3, None, ["L", 2]])
def test_an_orientation_that_cannot_be_read_is_a_clear_error(bundle, codes):
    with pytest.raises(WeightsError, match=r"inference.json.*(orientation|looked up)"):
        read_description(turned_by(bundle, _target_="Orientationd", axcodes=codes))


def test_damaged_yaml_is_a_clear_error(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "model.pt").write_bytes(b"")
    (tmp_path / "configs" / "inference.yaml").write_text("network_def: [1, 2\nother: }")
    with pytest.raises(WeightsError, match=r"inference\.yaml cannot be read"):
        read_description(tmp_path)


def test_yaml_without_its_package_is_a_clear_error(tmp_path, monkeypatch):
    test_damaged_yaml_is_a_clear_error(tmp_path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(WeightsError, match="pip install pyyaml"):
        read_description(tmp_path)
