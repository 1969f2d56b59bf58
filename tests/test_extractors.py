"""Features are those of the network that they are named for, pictures are resized as said, weights are checked."""

from __future__ import annotations

import hashlib
import shutil
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from timm.data.config import resolve_data_config
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torchmetrics.image.fid import NoTrainInceptionV3

from diffsweep.evaluation import efficientnet as efficientnet_module
from diffsweep.evaluation import inception as inception_module
from diffsweep.evaluation.efficientnet import EfficientNetLite0, efficientnet, resized
from diffsweep.evaluation.extractor import Extractor
from diffsweep.evaluation.inception import OUTPUTS, Inception, inception
from diffsweep.evaluation.pretrained import File, find
from diffsweep.evaluation.timm_features import timm_features
from diffsweep.runs.prefetch import prefetch
from diffsweep.sweep.store.signature import cell_signature

CONF = Path(__file__).parent.parent / "conf"
CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
VIT = "test_vit.r160_in1k"


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=list(overrides))


def noise(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def photograph(name: str) -> Tensor:
    """Uint8 (1, 3, 427, 640)."""
    return torch.from_numpy(load_sample_image(name).copy()).permute(2, 0, 1)[None]


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's hub folder, empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def file(tmp_path: Path) -> File:
    """A weights file that can be downloaded."""
    source = tmp_path / "site" / "net.pth"
    source.parent.mkdir()
    source.write_bytes(CONTENT)
    return File("the Net", "net.pth", SHA256, source.as_uri())


# --- finding weights ------------------------------------------------------------------------------------------------


def test_the_given_path_comes_before_the_folder_before_the_hub_before_the_package(
    file: File, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "carries_weights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('weights are data: nothing of theirs may run')")
    monkeypatch.syspath_prepend(package.parent)
    file = replace(file, fetch=False, package=("carries_weights", "inside.pth"))
    given, folder = tmp_path / "mine.pth", tmp_path / "weights"
    for place in (package / "inside.pth", hub / "net.pth", folder / "net.pth", given):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(CONTENT)
        found = find(file, given if place == given else None, folder)
        assert (found.path, found.content, found.digest) == (place, CONTENT, SHA256)
    assert "carries_weights" not in sys.modules


@pytest.mark.parametrize("given", [False, True])
def test_another_file_under_the_right_name_is_refused(file: File, hub: Path, given: bool) -> None:
    hub.mkdir(parents=True)
    (hub / file.name).write_bytes(b"other weights")
    line = refusal(lambda: find(file, hub / file.name if given else None))
    for words in (str(hub / file.name), hashlib.sha256(b"other weights").hexdigest(), SHA256, file.url):
        assert words in line


@pytest.mark.parametrize("own", [False, True])
def test_a_download_lands_whole_in_the_folder_or_the_hub(file: File, hub: Path, tmp_path: Path, own: bool) -> None:
    folder = tmp_path / "weights" if own else None
    place = (folder or hub) / file.name
    assert find(file, folder=folder).path == place
    assert list(place.parent.iterdir()) == [place]
    Path(file.url.removeprefix("file://")).unlink()
    assert find(file, folder=folder).content == CONTENT


class Nonsense(socketserver.BaseRequestHandler):
    """A server, or what stands before it, that does not speak HTTP."""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"hello\r\n\r\n")


@pytest.fixture
def nonsense(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socketserver.TCPServer(("127.0.0.1", 0), Nonsense) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/net.pth"
        server.shutdown()


@pytest.mark.parametrize("damage", ["cut", "absent", "forbidden", "nonsense"])
def test_without_the_file_one_line_says_which_to_put_where(
    file: File, hub: Path, damage: str, nonsense: str, tmp_path: Path
) -> None:
    source = Path(file.url.removeprefix("file://"))
    if damage == "cut":
        source.write_bytes(CONTENT[:-1])
    elif damage == "absent":
        source.unlink()
    elif damage == "nonsense":
        file = replace(file, url=nonsense)
    else:
        file = replace(file, fetch=False)
    for folder, place in ((None, hub), (tmp_path / "weights", tmp_path / "weights")):
        line = refusal(lambda folder=folder: find(file, folder=folder))
        for words in (file.what, file.name, file.url, str(place / file.name), "paths.weights"):
            assert words in line
        assert ("downloading failed" in line) == file.fetch
        assert not list(place.glob("*")), "nothing half-written"


def test_a_path_that_is_none_is_refused(file: File, tmp_path: Path) -> None:
    line = refusal(lambda: find(file, tmp_path / "elsewhere.pth"))
    assert f"weights={tmp_path / 'elsewhere.pth'} is not a file" in line


def test_a_hash_that_nobody_gave_is_said(file: File, tmp_path: Path) -> None:
    given = tmp_path / "mine.pth"
    given.write_bytes(CONTENT)
    assert f"sha256={SHA256}" in refusal(lambda: find(replace(file, sha256=None), given))
    assert find(replace(file, sha256=SHA256.upper()), given).content == CONTENT


@pytest.mark.parametrize("known", [inception_module.FILE, efficientnet_module.FILE], ids=lambda known: known.name)
def test_hashes_begin_as_the_names_of_the_files_end(known: File) -> None:
    assert known.sha256 is not None
    assert len(known.sha256) == 64
    assert known.name.removesuffix(".pth").endswith(known.sha256[:8])


def test_paths_weights_reaches_every_extractor_and_no_signature(tmp_path: Path) -> None:
    for name in ("inception", "efficientnet", "dinov2", "clip"):
        cfg = composed(f"extractor={name}")
        before = cell_signature(cfg)
        assert cfg.evaluation.extractor.folder is None
        cfg.paths.weights = str(tmp_path)
        assert cfg.evaluation.extractor.folder == str(tmp_path)
        cfg.evaluation.extractor.weights = str(tmp_path / "mine")
        assert cell_signature(cfg) == before
    cfg.evaluation.extractor.sha256 = SHA256
    assert cell_signature(cfg) != before


# --- pictures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(427, 640), (100, 300), (32, 32)])
def test_pictures_are_resized_as_pil_does(mode: str, shape: tuple[int, int]) -> None:
    image = photograph("china.jpg")[:, :, : shape[0], : shape[1]]
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}[mode]
    theirs = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((224, 224), method)
    ours = resized(image, 224, mode)
    # PIL rounds, and cuts off, after each of the two directions.
    apart = (ours[0] - torch.from_numpy(np.array(theirs)).permute(2, 0, 1)).abs()
    assert apart.max() < (1.01 if mode == "bilinear" else 3)
    assert apart.mean() < 0.5
    assert ours.min() >= 0
    assert ours.max() <= 255


def test_a_checkerboard_of_single_pixels_becomes_grey() -> None:
    board = (torch.arange(672)[:, None] + torch.arange(672)) % 2 * 255
    grey = resized(board.to(torch.uint8).expand(1, 3, -1, -1), 224, "bilinear")
    assert (grey - 127.5).abs()[..., 2:-2, 2:-2].max() < 3


def test_pictures_of_the_right_size_stay_as_they_are() -> None:
    x = noise(2, 3, 64, 64)
    assert torch.equal(resized(x, 64, "bicubic"), x.float())


# --- Inception ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def random_inception() -> FeatureExtractorInceptionV3:
    torch.manual_seed(0)
    module = "torch_fidelity.feature_extractor_inceptionv3"
    with patch.object(FeatureExtractorInceptionV3, "load_state_dict"), patch(f"{module}.load_state_dict_from_url"):
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048", "logits_unbiased"])


def test_inception_is_that_of_torch_fidelity_and_torchmetrics(
    random_inception: FeatureExtractorInceptionV3, tmp_path: Path
) -> None:
    state = random_inception.state_dict()
    ours = Extractor(Inception(state), "random_inception", 2048, "random", OUTPUTS)
    x = noise(2, 3, 40, 32)
    blocks: list[Any] = []
    with random_inception.Mixed_6d.register_forward_hook(lambda _module, _given, out: blocks.append(out)):
        pooled, logits = random_inception(x)
    found = ours(x)
    # As another port takes the last: the first channels of the whole block, whose first branch they are.
    for name, theirs in (("features", pooled), ("logits", logits), ("spatial", blocks[0][:, :7].reshape(2, 2023))):
        assert (found[name] - theirs).abs().max() < 1e-5 * theirs.abs().max(), name
    torch.save(state, tmp_path / "random.pth")
    theirs = NoTrainInceptionV3("inception", ["2048"], str(tmp_path / "random.pth"), antialias=False)
    assert torch.allclose(found["features"], theirs(x), atol=1e-5)
    grey = x[:1, :1]
    one, three = ours(grey), ours(grey.repeat(1, 3, 1, 1))
    assert all(torch.equal(one[name], three[name]) for name in OUTPUTS)


def test_all_that_inception_gives_comes_from_one_pass(random_inception: FeatureExtractorInceptionV3) -> None:
    network = Inception(random_inception.state_dict())
    passes: list[int] = []
    for module in (network.body.Conv2d_1a_3x3, network.body.Mixed_6d, network.body.AvgPool):
        module.register_forward_hook(lambda *_: passes.append(1))
    last: list[bool] = []
    network.body.Mixed_7c.register_forward_pre_hook(
        lambda _, given: last.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    network(noise(2, 3, 16, 16))
    assert len(passes) == 3
    # What is fast on a CPU, from the first layer to the last.
    assert last == [True]


def test_only_the_original_weights_may_be_called_fid(random_inception: FeatureExtractorInceptionV3, hub: Path) -> None:
    place = hub / inception_module.FILE.name
    place.parent.mkdir(parents=True)
    torch.save(random_inception.state_dict(), place)
    for weights in (None, str(place)):
        assert f"{place} is not the Inception of FID: its SHA-256 is" in refusal(
            lambda weights=weights: inception(weights)
        )


# --- EfficientNet ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lite0() -> Extractor:
    return efficientnet()


@pytest.mark.parametrize(
    ("name", "sensible"),
    [("china.jpg", ("bell cote", "palace", "stupa", "monastery", "boathouse")), ("flower.jpg", ("daisy",))],
)
def test_real_weights_know_real_photographs(lite0: Extractor, name: str, sensible: tuple[str, ...]) -> None:
    """A pavilion at a lake, and a dahlia, for which ImageNet has no better word than daisy."""
    top = int(lite0(photograph(name))["logits"].argmax())
    assert ImageNetInfo().index_to_description(top).startswith(sensible)


def test_the_network_is_timms_with_the_same_weights(lite0: Extractor) -> None:
    theirs: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    # Both list the same layers in the same order, by other names.
    assert isinstance(lite0.network, EfficientNetLite0)
    ours = lite0.network.body.state_dict()
    names = theirs.state_dict()
    assert [value.shape for value in ours.values()] == [value.shape for value in names.values()]
    theirs.load_state_dict(dict(zip(names, ours.values(), strict=True)))
    x = noise(2, 3, 224, 224)
    found = lite0(x)
    with torch.inference_mode():
        maps = theirs.forward_features((x.float() - 127) / 128)
        logits = theirs((x.float() - 127) / 128)
    assert torch.allclose(found["features"], maps.mean(dim=(2, 3)), atol=1e-4)
    assert torch.allclose(found["logits"], logits, atol=1e-4)
    assert found["features"].shape == (2, 1280)
    assert found["logits"].shape == (2, 1000)


def test_grey_pictures_are_three_equal_channels_and_anything_else_is_refused(lite0: Extractor) -> None:
    grey = noise(2, 1, 8, 8)
    three = lite0(grey.repeat(1, 3, 1, 1))
    for name, output in lite0(grey).items():
        assert torch.equal(output, three[name])
    for wrong in (noise(2, 2, 8, 8), noise(2, 5, 8, 8), torch.zeros(2, 3, 8, 8), noise(3, 8, 8)):
        assert str(tuple(wrong.shape)) in refusal(lambda wrong=wrong: lite0(wrong))
    assert "uint8" in refusal(lambda: resized(torch.zeros(1, 3, 8, 8), 8, "bilinear"))


def test_a_fourth_channel_is_opacity_over_white(lite0: Extractor) -> None:
    colours = noise(2, 3, 8, 8)
    seen, half = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8), torch.full((2, 1, 8, 8), 51, dtype=torch.uint8)
    for name, output in lite0(torch.cat([colours, seen], 1)).items():
        assert torch.equal(output, lite0(colours)[name])
    # A fifth of the colour over four fifths of white.
    over = ((colours.int() * 51 + 255 * 204 + 127) // 255).to(torch.uint8)
    assert torch.equal(lite0(torch.cat([colours, half], 1))["features"], lite0(over)["features"])


def test_another_size_is_another_space(lite0: Extractor) -> None:
    small = efficientnet(64)
    assert lite0.called("fd") == "fd_efficientnet_lite0"
    assert small.called("fd") == "fd_efficientnet_lite0_64"
    assert small.digest != lite0.digest
    assert small.resize.startswith("64x64 bilinear, antialiased")
    sizes: list[Any] = [16, 64.5]
    for size in sizes:
        assert f"size={size}" in refusal(lambda size=size: efficientnet(size))


# --- timm -----------------------------------------------------------------------------------------------------------


def saved(folder: Path, seed: int = 0) -> tuple[nn.Module, Path, str]:
    """A small vision transformer with random weights, its file and the file's hash."""
    torch.manual_seed(seed)
    body = timm.create_model(VIT, pretrained=False, dynamic_img_size=True).eval()
    path = folder / f"{VIT}.safetensors"
    folder.mkdir(exist_ok=True)
    save_file(body.state_dict(), path)
    return body, path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("size", [160, 96])
def test_timms_features_are_those_of_its_network_with_its_preprocessing(tmp_path: Path, size: int) -> None:
    body, path, sha256 = saved(tmp_path)
    ours = timm_features(VIT, "vit", size, str(path), sha256)
    x = noise(2, 3, size, size)
    with torch.inference_mode():
        expected = body((x / 255 - 0.5) / 0.5)
    assert resolve_data_config({}, model=body)["mean"] == (0.5, 0.5, 0.5)
    assert torch.allclose(ours(x)["features"], expected, atol=1e-5)
    assert ours.called("fd") == "fd_vit"
    assert ours.resize == f"{size}x{size} bicubic, antialiased, by torch"
    assert torch.equal(ours(x[:, :1])["features"], ours(x[:, :1].repeat(1, 3, 1, 1))["features"])


def test_the_hash_that_is_told_can_be_pasted_and_tells_weights_apart(tmp_path: Path) -> None:
    _, path, sha256 = saved(tmp_path / "one")
    line = refusal(lambda: timm_features(VIT, "vit", 64, str(path)))
    told = line.rpartition("sha256=")[2]
    assert told == sha256
    one = timm_features(VIT, "vit", 64, str(path), told)
    moved = shutil.copy(path, tmp_path / "elsewhere.safetensors")
    assert timm_features(VIT, "vit", 64, str(moved), told).digest == one.digest
    _, other, sha256 = saved(tmp_path / "two", seed=1)
    assert timm_features(VIT, "vit", 64, str(other), sha256).digest != one.digest
    assert timm_features(VIT, "vit", 32, str(path), told).digest != one.digest
    assert f"{path} is not {VIT}" in refusal(lambda: timm_features(VIT, "vit", 64, str(path), sha256))
    assert timm_features(VIT, "vit", 64, sha256=told, folder=str(tmp_path / "one")).files == (path,)


def test_what_timm_cannot_make_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path, sha256 = saved(tmp_path)
    ask = {"weights": str(path), "sha256": sha256}
    assert "model=dino9 is no network" in refusal(lambda: timm_features("dino9", "x", 64, **ask))
    sizes: list[Any] = [100, 64.5]
    for size in sizes:
        line = refusal(lambda size=size: timm_features(VIT, "x", size, **ask))
        assert f"size={size} does not fit {VIT}" in line
    assert "holds no weights of test_resnet" in refusal(lambda: timm_features("test_resnet.r160_in1k", "x", 64, **ask))
    path.write_bytes(b"{}")
    ask["sha256"] = hashlib.sha256(b"{}").hexdigest()
    assert "holds no weights" in refusal(lambda: timm_features(VIT, "x", 64, **ask))
    line = refusal(lambda: timm_features(VIT, "x", 64))
    assert f"huggingface.co/timm/{VIT}" in line
    assert "downloading" not in line
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'diffsweep[timm]'" in refusal(lambda: timm_features(VIT, "x", 64, **ask))


@pytest.mark.parametrize(("name", "dimension"), [("dinov2", 384), ("clip", 512)])
def test_the_networks_of_our_options_are_timms(name: str, dimension: int) -> None:
    asked = composed(f"extractor={name}").evaluation.extractor
    with torch.device("meta"):
        body: Any = timm.create_model(asked.model, pretrained=False, dynamic_img_size=True).eval()
        assert body(torch.zeros(1, 3, asked.size, asked.size)).shape == (1, dimension)


# --- prefetch -------------------------------------------------------------------------------------------------------


def test_prefetch_says_what_was_there_and_what_is_new(tmp_path: Path) -> None:
    place = tmp_path / "weights" / efficientnet_module.FILE.name
    place.parent.mkdir()
    place.write_bytes(find(efficientnet_module.FILE).content)
    cfg = composed(
        "extractor=efficientnet",
        "metric=[frechet]",
        "evaluation.extractor.size=32",
        "evaluation.samples=8",
        "evaluation.reference=test",
        f"paths.runs={tmp_path / 'runs'}",
        f"paths.weights={place.parent}",
    )
    first, second = prefetch(cfg).splitlines(), prefetch(cfg).splitlines()
    assert first[0] == second[0] == "digits: 1,297 training and 500 test examples"
    assert f"  was there: {place} (18.8 MB)" in first
    made = [line.split()[1] for line in first if line.startswith("  made")]
    assert sorted(map(Path, made)) == sorted((tmp_path / "runs" / "cache").iterdir())
    # What an extractor sees of both splits, the floor, and how many of the data's values are at an end of their range.
    assert len(made) == 4
    assert second[-1].endswith(": were there")
    assert not any("made" in line for line in second)
