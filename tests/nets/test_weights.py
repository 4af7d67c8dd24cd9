"""Weights from files: what fits is taken, what does not is named, nothing is run."""

from __future__ import annotations

import hashlib
import pickle
import random
import zipfile

import pytest
import torch
from monai.networks import nets as monai
from safetensors.torch import save_file

from shiftproof import nets
from shiftproof.errors import ModelError, OptionError
from shiftproof.nets.weights import read_tensors

SIZES = {"dimensions": 2, "channels": 1, "outputs": 3}


def unet(seed=0, **options):
    torch.manual_seed(seed)
    return nets.build("unet", **{**SIZES, "widths": (4, 6, 8), **options})


def state(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(net, other):
    return all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.values(), strict=True))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pt"


WRAPPED = {
    "plain": lambda s: s,
    "module": lambda s: {f"module.{k}": v for k, v in s.items()},
    "network of a method": lambda s: {
        **{f"network.{k}": v for k, v in s.items()},
        **{f"teacher.{k}": v * 0 for k, v in s.items()},
    },
    "twice": lambda s: {f"model._orig_mod.{k}": v for k, v in s.items()},
    "checkpoint": lambda s: {"epoch": 3, "state_dict": s, "optimizer": {"state": {0: torch.zeros(2)}}},
    "nested": lambda s: {"model": {"state_dict": {f"module.{k}": v for k, v in s.items()}}},
}


@pytest.mark.parametrize("wrapped", WRAPPED.values(), ids=WRAPPED)
def test_a_state_dict_is_found_inside_what_programs_put_around_it(wrapped, path):
    trained = state(unet(seed=1))
    torch.save(wrapped(trained), path)
    net = unet()

    result = nets.load_weights(net, path, strict="all")

    assert same(net, trained)
    assert len(result.loaded) == len(trained)
    assert result.missing == result.other_shape == result.adapted == ()
    assert all(name.startswith("teacher.") for name in result.unused)


@pytest.mark.parametrize("form", ["folder", "safetensors", "old torch"])
def test_every_kind_of_file_is_read(form, tmp_path):
    trained = state(unet(seed=1))
    path = tmp_path / {"folder": "", "safetensors": "w.safetensors", "old torch": "w.pth"}[form]
    if form == "old torch":
        torch.save(trained, path, _use_new_zipfile_serialization=False)
    else:
        save_file({f"network.{k}": v for k, v in trained.items()}, tmp_path / "weights.safetensors")
        save_file(trained, tmp_path / "w.safetensors")
    net = unet()

    nets.load_weights(net, path, strict="all")

    assert same(net, trained)


@pytest.mark.parametrize(
    ("name", "theirs", "options"),
    [
        (
            "basicunet",
            lambda: monai.BasicUNet(2, 1, 3, (4, 4, 6, 8, 8, 5)),
            {"features": (4, 4, 6, 8, 8, 5)},
        ),
        (
            "dynunet",
            lambda: monai.DynUNet(
                2,
                1,
                3,
                [3] * 3,
                [1, 2, 2],
                [2, 2],
                [4, 6, 8],
                deep_supervision=True,
                norm_name=("instance", {"affine": True}),
            ),
            {"filters": (4, 6, 8), "deep_supervision": True},
        ),
        ("segresnet", lambda: monai.SegResNet(2, 8, 1, 3), {}),
        (
            "unetr",
            lambda: monai.UNETR(1, 3, 32, 4, 12, 16, 2, norm_name="batch", spatial_dims=2),
            {"feature_size": 4, "hidden_size": 12, "mlp_dim": 16, "num_heads": 2, "norm": "batch", "patch": (32, 32)},
        ),
        (
            "densenet121",
            lambda: monai.DenseNet121(2, 1, 3, 8, 4, (2, 2)),
            {"init_features": 8, "growth_rate": 4, "block_config": (2, 2)},
        ),
        (
            "attentionunet",
            lambda: monai.AttentionUnet(2, 1, 3, (4, 6), (2,)),
            {"widths": (4, 6)},
        ),
    ],
)
def test_checkpoints_of_monai_fit_their_networks(name, theirs, options, path):
    torch.manual_seed(5)
    network = theirs()
    torch.save({"state_dict": network.state_dict()}, path)
    net = nets.build(name, **SIZES, **options, weights=path)
    image = torch.randn(2, 1, 32, 32)

    assert torch.equal(net.eval()(image), network.eval()(image))


def test_another_head_keeps_the_weights_of_the_seed_and_is_reported(path):
    trained = state(unet(seed=1, outputs=5))
    torch.save(trained, path)
    fresh, net = unet(seed=2), unet(seed=2)

    result = nets.load_weights(net, path)

    assert result.other_shape == (
        "decoder.heads.0.weight 5x4x1x1 instead of 3x4x1x1",
        "decoder.heads.0.bias 5 instead of 3",
    )
    assert torch.equal(net.decoder.heads[0].weight, fresh.decoder.heads[0].weight)
    assert all(torch.equal(net.state_dict()[name], trained[name]) for name in result.loaded)
    assert len(result.loaded) == len(trained) - 2
    with pytest.raises(ModelError, match=r"does not have all.*decoder.heads.0.weight"):
        nets.load_weights(net, path, strict="all")


def test_the_seed_decides_what_is_not_loaded_whether_or_not_there_is_a_file(path):
    torch.save({k: v for k, v in state(unet(seed=1)).items() if k.startswith("encoder")}, path)

    torch.manual_seed(3)
    net = nets.build("unet", **SIZES, widths=(4, 6, 8), weights=str(path))
    after = torch.rand(1)

    plain = unet(seed=3)
    assert torch.equal(after, torch.rand(1))
    assert str(net.loaded).startswith(f"18 of 34 tensors from {path}; not in the file: decoder.levels")
    assert same(net.decoder, state(plain.decoder))
    assert same(net.encoder, state(unet(seed=1).encoder))


@pytest.mark.parametrize(("theirs", "ours"), [(3, 1), (1, 3), (2, 3)])
def test_first_convolutions_answer_alike_channels_as_before(theirs, ours, path):
    options = {"residual": True, "norm": "none"}  # two convolutions read the image
    trained, net = unet(seed=1, channels=theirs, **options), unet(channels=ours, **options)
    torch.save(trained.state_dict(), path)
    image = torch.randn(1, 1, 8, 8)

    result = nets.load_weights(net, path, strict="all")

    assert result.adapted == ("encoder.levels.0.layers.0.weight", "encoder.levels.0.shortcut.0.weight")
    torch.testing.assert_close(net(image.expand(1, ours, 8, 8)), trained(image.expand(1, theirs, 8, 8)))


def test_a_file_of_another_network_is_refused_and_nothing_has_changed(path):
    torch.save(state(unet(widths=(5, 7, 9))), path)
    net = unet()
    before = state(net)

    with pytest.raises(ModelError, match=r"fits \d of 18 tensors of this network's encoder, expected at least half"):
        nets.load_weights(net, path)
    assert same(net, before)


def test_names_that_fit_both_halves_are_given_to_neither(path):
    torch.save(unet(seed=1).encoder.state_dict(), path)

    with pytest.raises(ModelError, match="fits 0 of 18"):
        nets.load_weights(unet(), path)


def test_half_of_the_encoder_is_enough_and_less_is_not(path):
    names = [name for name, _ in unet().named_parameters() if name.startswith("encoder.")]
    trained = state(unet(seed=1))

    torch.save({name: trained[name] for name in names[:9]}, path)
    assert len(nets.load_weights(unet(), path).missing) == len(trained) - 9
    torch.save({name: trained[name] for name in names[:8]}, path)
    with pytest.raises(ModelError, match="fits 8 of 18"):
        nets.load_weights(unet(), path)


def test_values_that_are_not_finite_are_refused(path):
    trained = state(unet(seed=1))
    trained["decoder.heads.0.bias"][1] = float("nan")
    torch.save(trained, path)
    net = unet()
    before = state(net)

    with pytest.raises(ModelError, match="decoder.heads.0.bias that are not finite"):
        nets.load_weights(net, path)
    assert same(net, before)


def test_half_precision_is_read_and_whole_numbers_are_not(path):
    trained = state(unet(seed=1))
    torch.save({k: v.bfloat16() for k, v in trained.items()}, path)
    net = unet()
    nets.load_weights(net, path, strict="all")
    assert same(net, {k: v.bfloat16().float() for k, v in trained.items()})

    torch.save({k: (v * 100).to(torch.int8) for k, v in trained.items()}, path)
    with pytest.raises(ModelError, match=r"\(int8\) instead of"):
        nets.load_weights(net, path)


class Trap:
    """Reading this would create a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


@pytest.mark.parametrize("writer", ["torch", "old torch", "pickle"])
def test_what_would_run_code_is_refused_and_not_run(writer, path, tmp_path):
    content = {**state(unet()), "extra": Trap(tmp_path / "mark")}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")

    with pytest.raises(ModelError, match="weights.pt") as error:
        nets.load_weights(unet(), path)
    assert not (tmp_path / "mark").exists()
    assert "\n" not in str(error.value)
    assert writer == "pickle" or "run code" in str(error.value)


def test_a_whole_pickled_network_is_refused(path):
    torch.save(unet(), path)

    with pytest.raises(ModelError, match="save the state dict alone"):
        nets.load_weights(unet(), path)


def test_a_compressed_archive_is_not_unpacked(path):
    torch.save({"weight": torch.zeros(1_000_000)}, path)
    small = path.with_name("small.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(small, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert small.stat().st_size < 10_000

    with pytest.raises(ModelError, match="small.pt is compressed"):
        nets.load_weights(unet(), small)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "cannot be read"), (b"hello", "weights.pt"), (b"PK\x03\x04" + b"\0" * 50, "cannot be read")],
)
def test_a_broken_file_is_named(content, words, path):
    path.write_bytes(content)

    with pytest.raises(ModelError, match=words):
        nets.load_weights(unet(), path)


def test_every_beginning_of_a_good_file_is_refused_with_a_type(tmp_path):
    save_file(state(unet()), tmp_path / "good.safetensors")
    torch.save(state(unet()), tmp_path / "good.pt")
    for good in (tmp_path / "good.safetensors", tmp_path / "good.pt"):
        content = good.read_bytes()
        broken = good.with_name("broken" + good.suffix)
        for length in range(0, len(content), len(content) // 20):
            broken.write_bytes(content[:length])
            with pytest.raises(ModelError, match="broken"):
                read_tensors(broken)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {}}, torch.zeros(3)])
def test_a_file_without_named_tensors_is_refused(content, path):
    torch.save(content, path)

    with pytest.raises(ModelError, match="holds no tensors"):
        nets.load_weights(unet(), path)


def test_what_is_not_there_or_no_file_of_weights_is_named(tmp_path):
    (tmp_path / "w.onnx").write_bytes(b"x")
    for path, words in [
        (tmp_path, "no model folder"),
        (tmp_path / "no.pt", "no weights at"),
        (tmp_path / "w.onnx", ".safetensors, .pt, .pth"),
    ]:
        with pytest.raises(ModelError, match=words):
            nets.load_weights(unet(), path)
        with pytest.raises(ModelError, match=words):
            nets.weights_hash(path)
    with pytest.raises(OptionError, match="matching"):
        nets.load_weights(unet(), tmp_path, strict="some")


def test_the_hash_is_that_of_the_file_and_pins_it(tmp_path):
    file = tmp_path / "weights.safetensors"
    save_file(state(unet(seed=1)), file)
    expected = hashlib.sha256(file.read_bytes()).hexdigest()
    table = {"name": "unet", "widths": [4, 6, 8], "weights": str(tmp_path)}

    pinned = nets.pinned(table)

    assert nets.weights_hash(tmp_path) == nets.weights_hash(file) == expected
    assert pinned == {**table, "weights_hash": expected}
    assert nets.pinned(pinned) == pinned
    assert nets.pinned({"name": "unet"}) == {"name": "unet"}
    assert same(nets.build(**pinned, **SIZES), state(unet(seed=1)))
    save_file(state(unet(seed=2)), file)
    for use in (lambda: nets.build(**pinned, **SIZES), lambda: nets.pinned(pinned)):
        with pytest.raises(ModelError, match="has changed since it was chosen"):
            use()


def test_weights_can_be_checked_without_memory(path):
    torch.save(state(unet(channels=2)), path)

    with torch.device("meta"):
        net = unet(weights=path)
        with pytest.raises(ModelError, match="expected at least half"):
            unet(widths=(5, 7), weights=path)
    assert all(p.is_meta for p in net.parameters())


def mutated(content, draws):
    """Bytes overwritten, cut out or put in, mostly where a file describes itself; or the end torn off."""
    changed, place = bytearray(content), draws.randrange(min(len(content), draws.choice([3000, len(content)])))
    kind = draws.choice(["overwrite", "overwrite", "tear", "cut", "insert"])
    if kind == "overwrite":
        changed[place] = draws.choice([0, 255, draws.randrange(256)])
    elif kind == "tear":
        del changed[place:]
    elif kind == "cut":
        del changed[place : place + draws.randint(1, 8)]
    else:
        changed[place:place] = draws.randbytes(draws.randint(1, 8))
    return bytes(changed)


@pytest.mark.parametrize("number", [100, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("form", ["good.pt", "old.pth", "good.safetensors"])
def test_mutated_files_are_read_or_refused_with_a_type(form, number, tmp_path):
    net = unet(widths=(2, 3))
    good = tmp_path / form
    if form == "good.safetensors":
        save_file(state(net), good)
    else:
        torch.save(state(net), good, _use_new_zipfile_serialization=form == "good.pt")
    draws, content, broken = random.Random(0), good.read_bytes(), tmp_path / f"broken{good.suffix}"
    refused = []
    for _ in range(number):
        broken.write_bytes(mutated(content, draws))
        try:
            nets.load_weights(net, broken)
        except ModelError as error:
            refused.append(str(error))
    assert all(p.isfinite().all() for p in net.parameters())
    assert refused
    assert all("broken" in words and "\n" not in words for words in refused)
