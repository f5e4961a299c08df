"""Which of a file's weights are taken, under which names, and what is refused instead."""

import json

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from other_networks import Mmseg, random_network
from saved_network import saved
from torch.optim.swa_utils import AveragedModel

import atrous
from atrous.errors import InputError
from atrous.run import RunData, load_run
from atrous.taxonomy import Taxonomy
from atrous.weights.convert import import_weights, write_run

STATE = smp.Unet("resnet18", encoder_weights=None, classes=4).state_dict()
OTHER = smp.Unet("resnet18", encoder_weights=None, classes=4).state_dict()
HEAD = "segmentation_head.0.weight"
ABOUT = RunData(name="theirs", licence="CC0-1.0", source="theirs.pth")


def under(prefix, state=STATE):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def imported_from(content, folder):
    torch.save(content, folder / "theirs.pth")
    return import_weights(folder / "theirs.pth")


def is_state(imported):
    """Whether the network holds STATE, from the first layer to the last."""
    ours = imported.network.state_dict()
    first = torch.equal(ours["backbone.network.conv1.weight"], STATE["encoder.conv1.weight"])
    return first and torch.equal(ours["head.1.weight"], STATE[HEAD])


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "net.", "network.", "student.", "segmentor_1."),
        *("module._orig_mod.", "_orig_mod.module.", "model.module._orig_mod.net.student."),
    ],
)
def test_names_may_begin_with_anything(prefix, tmp_path):
    imported = imported_from({"state_dict": under(prefix)}, tmp_path)
    assert is_state(imported)
    assert imported.report.taken == f"{len(STATE)} tensors of state_dict named {prefix}*"
    assert imported.report.left_over == ()


@pytest.mark.parametrize(
    ("part", "inserted"),
    [
        ("encoder.", "_orig_mod."),
        ("decoder.", "_fsdp_wrapped_module."),
        ("encoder.layer1.", "_checkpoint_wrapped_module."),
        ("encoder.", "_fsdp_wrapped_module._orig_mod."),
    ],
)
def test_a_part_of_the_network_may_be_wrapped(part, inserted, tmp_path):
    names = {name: name.replace(part, part + inserted, 1) for name in STATE}
    state = {f"model.{names[name]}": tensor for name, tensor in STATE.items()}
    imported = imported_from({"state_dict": state}, tmp_path)
    assert is_state(imported)
    assert imported.report.taken == f"{len(STATE)} tensors of state_dict named model.*"
    again = {names[name]: tensor for name, tensor in OTHER.items()}
    with pytest.raises(InputError, match="holds a tensor twice"):
        imported_from(STATE | again, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "taken", "left_over", "others"),
    [
        ({"model": OTHER, "model_ema": STATE}, "of model_ema, averaged", (), ("model",)),
        ({"state_dict": OTHER, "state_dict_ema": STATE}, "averaged", (), ("state_dict",)),
        ({"state_dict": OTHER, "ema_state_dict": STATE}, "averaged", (), ("state_dict",)),
        (  # mmengine swaps the two as it saves
            {
                "state_dict": STATE,
                "message_hub": {},
                "ema_state_dict": {**under("module.", OTHER), "steps": torch.tensor(3)},
            },
            "of state_dict, averaged weights",
            (),
            ("ema_state_dict",),
        ),
        ({"params": OTHER, "params_ema": STATE}, "of params_ema, averaged", (), ("params",)),
        ({"model": OTHER, "EMA": {"module": STATE}}, "EMA.module, averaged", (), ("model",)),
        ({"swaModel": STATE, "net": OTHER}, "of swaModel, averaged", (), ("net",)),
        (
            {**under("module."), "n_averaged": torch.tensor(5)},
            "named module.*, averaged",
            ("n_averaged",),
            (),
        ),
        (
            {"state_dict": {**under("model.", OTHER), **under("ema_model.module.")}},
            "of state_dict named ema_model.module.*, averaged",
            tuple(under("model.")),
            (),
        ),
        ({"model": STATE, "ema": {"shadow": [torch.ones(2)]}}, "of model", (), ("ema",)),
        ({"state_dict": STATE, "current_model_state": OTHER}, "", (), ("current_model_state",)),
        ({"network_weights": STATE, "epoch": torch.tensor(3)}, "of network_weights", (), ()),
        ({"a": {"b": {"c": under("d.")}}}, "of a.b.c named d.*", (), ()),
    ],
)
def test_averaged_weights_come_first_and_it_is_said(content, taken, left_over, others, tmp_path):
    imported = imported_from(content, tmp_path)
    assert is_state(imported)
    assert taken in imported.report.taken
    assert ("averaged" in imported.report.taken) == ("averaged" in taken)
    assert imported.report.left_over == left_over
    assert imported.report.others == others


def test_torchs_averaged_model(tmp_path):
    network = smp.Unet("resnet18", encoder_weights=None, classes=4)
    network.load_state_dict(STATE)
    imported = imported_from(AveragedModel(torch.nn.DataParallel(network)).state_dict(), tmp_path)
    assert is_state(imported)
    assert imported.report.taken.endswith("tensors named module.module.*, averaged weights")
    assert imported.report.left_over == ("n_averaged",)


@pytest.mark.parametrize(
    "beside",
    [
        {"loss_fn.weight": torch.ones(4)},
        {"criterion.sobel.weight": torch.ones(1, 1, 3, 3)},
        {"val_iou.confmat": torch.ones(4, 4, dtype=torch.int64)},
        {"mean": torch.tensor([0.485, 0.456, 0.406]), "std": torch.ones(1, 3, 1, 1)},
    ],
)
def test_what_does_not_change_the_output_is_left_and_named(beside, tmp_path):
    imported = imported_from({**under("model."), **beside}, tmp_path)
    assert is_state(imported)
    assert imported.report.left_over == tuple(beside)


@pytest.mark.parametrize("scale", [1, 255])
def test_a_mean_and_a_deviation_in_the_file_are_taken(scale, tmp_path):
    mean, std = torch.tensor([0.5, 0.25, 0.75]) * scale, torch.full((1, 3, 1, 1), 0.5 * scale)
    imported = imported_from({**under("model."), "mean": mean, "std": std}, tmp_path)
    assert imported.normalization.mean == (0.5, 0.25, 0.75)
    assert imported.normalization.std == (0.5, 0.5, 0.5)


CHANGED = "which may change|they may change what comes out"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({**under("coarse."), "refine.weight": torch.ones(1, 4, 1, 1)}, CHANGED),
        ({**under("model."), "norm.running_mean": torch.ones(3)}, f"norm.running_mean: {CHANGED}"),
        ({**under("model."), **{f"model_ema.{k.replace('.', '')}": v for k, v in STATE.items()}},
         CHANGED),
        ({**under("student."), **under("teacher.", OTHER)}, r"networks \(student\.\*, teac"),
        ({"generator": STATE, "discriminator": OTHER}, r"several networks \('generator', 'discrim"),
        ({"ema_1": STATE, "ema_2": OTHER, "model": OTHER}, r"several networks \('ema_1', 'ema_2'"),
        ({"model": STATE, "ema": {n: t for n, t in STATE.items() if "running" not in n}},
         "ema: does not fit unet: nothing for backbone.network.bn1.running_mean"),
        (smp.Unet("resnet18", encoder_weights=None, decoder_attention_type="scse").state_dict(),
         r"no place for decoder\.blocks\.0\.attention1\.attention\.cSE\.1\.weight"),
        (smp.Unet("resnet18", encoder_weights=None, in_channels=4).state_dict(),
         "another shape: encoder.conv1.weight 64x4x7x7 for 64x3x7x7"),
    ],
)  # fmt: skip
def test_what_may_change_the_output_is_never_dropped(content, says, tmp_path):
    with pytest.raises(InputError, match=says) as caught:
        imported_from(content, tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'theirs.pth'}: ")
    assert "\n" not in str(caught.value)


def taxonomy(*names):
    return Taxonomy(name="data", classes=names, colors=tuple((i, 0, 0) for i in range(len(names))))


@pytest.mark.parametrize("model", ["Unet", "DeepLabV3Plus"])
def test_one_output_becomes_two_classes(model, tmp_path):
    torch.manual_seed(0)
    network = getattr(smp, model)("resnet18", encoder_weights=None, classes=1)
    saved(network, tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    normal = (image / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    batch = torch.from_numpy(normal).float().permute(2, 0, 1)[None]
    with torch.no_grad():  # a fifth is foreground
        network.segmentation_head[0].bias -= network(batch).quantile(0.8)
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    imported = import_weights(tmp_path / "theirs.pth")
    write_run(imported, taxonomy("background", "crack"), tmp_path / "run", ABOUT)
    found = atrous.load(tmp_path / "run", threads=1)(image)
    if model == "Unet":  # whose logits are full-size: theirs and ours are enlarged alike
        with torch.no_grad():
            probabilities = network(batch).sigmoid()[0, 0].numpy()
        is_sure = abs(probabilities - 0.5) > 1e-4  # elsewhere the order of sums decides
        assert is_sure.mean() > 0.99
        assert np.array_equal(found.labels[is_sure], probabilities[is_sure] > 0.5)
        assert 0.15 < found.labels.mean() < 0.25
    with torch.no_grad():
        cells = imported.network(batch).logits  # of the one output
        ours = load_run(tmp_path / "run").network.network(batch).logits
    assert torch.equal(ours[:, 1:], cells)
    assert not ours[:, 0].any()


@pytest.mark.slow
@torch.no_grad()
def test_mmsegmentation_reads_one_output_by_its_own_threshold(tmp_path):
    state = random_network(Mmseg, "fcn", 50, 1).state_dict()
    batch = torch.randn(1, 3, 64, 64)
    logits = imported_from(state, tmp_path).network(batch).logits
    state["decode_head.conv_seg.bias"] -= logits.median() + 0.8  # about 0.3 in the middle
    imported = imported_from(state, tmp_path)
    write_run(imported, taxonomy("background", "crack"), tmp_path / "run", ABOUT)
    foreground = imported.network(batch).logits[:, 0].sigmoid() > 0.3
    labels = load_run(tmp_path / "run").network.network(batch).logits.argmax(1)
    assert torch.equal(labels == 1, foreground)
    assert 0 < foreground.float().mean() < 1


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("crack",), 'two classes apart; data has one: list "background" before "crack"'),
        (("a", "b", "c"), "one output, for two classes, data has 3; name the data"),
        (("crack", "background"), 'is "background"; list it before "crack"'),
    ],
)
def test_one_output_needs_two_classes(names, says, tmp_path):
    state = smp.Unet("resnet18", encoder_weights=None, classes=1).state_dict()
    with pytest.raises(InputError, match=says) as caught:
        write_run(imported_from(state, tmp_path), taxonomy(*names), tmp_path / "run", ABOUT)
    assert str(caught.value).startswith("theirs.pth: ")
    assert not (tmp_path / "run").exists()


def test_a_folder_of_save_pretrained_tells_the_stride(tmp_path):
    network = smp.DeepLabV3Plus("resnet18", encoder_weights=None, encoder_output_stride=8)
    saved(network, tmp_path)
    network.save_pretrained(tmp_path)
    imported = import_weights(tmp_path)
    assert imported.options["output_stride"] == 8
    network.segmentation_head[1] = torch.nn.Identity()
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(
            imported.network(image).logits, network(image), rtol=1e-5, atol=1e-5
        )
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**config, "decoder_atrous_rates": [6, 12, 18]})
    )
    with pytest.raises(InputError, match=r"decoder_atrous_rates is .* where atrous has"):
        import_weights(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: not JSON"):
        import_weights(tmp_path)


def test_a_folder_of_save_pretrained_tells_namesakes_apart(tmp_path):
    network = smp.Unet("tu-tf_mobilenetv3_large_100", encoder_weights=None, classes=2)
    saved(network, tmp_path)
    network.save_pretrained(tmp_path)
    assert import_weights(tmp_path).options["backbone"] == "tf_mobilenetv3_large_100"
