"""Two processes with half of a batch each train as one with the whole: norms, losses, weights.

The processes run this file by torchrun, on the CPU.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from small_training import SMALL, run_in_two_processes, weights
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, distributed, nn

from atrous.data.shapes import write_shapes
from atrous.models.normalization import swap_norms
from atrous.train.loop import train
from atrous.train.loss.upsampled import upsampled_loss
from atrous.train.processes import SyncNorm, SyncNormAct, num_processes, synchronize_norms
from atrous.train.recipe import Recipe

RECIPE = replace(
    SMALL,
    backbone="resnet18",
    dropout=0.0,
    optimizer="sgd",
    base_lr=0.01,
    warmup_steps=0,
    num_steps=2,
    log_every=1,
    class_weights="auto",
    rare_crops=0.5,
    rotation=20.0,
    cutmix=0.4,
    classmix=0.4,
)
LOSSES = (
    Recipe(),
    Recipe(class_weights=(0.5, 2.0, 1.0), label_smoothing=0.1),
    Recipe(dice_weight=1.0),
)


def norms() -> nn.Sequential:
    """A plain norm and one with an activation."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.BatchNorm2d(8), BatchNormAct2d(8, act_layer=nn.Hardswish))
    swap_norms(layers)
    for parameter in layers.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return layers


def check_norms(mine: slice) -> None:
    # far from 0, where a mean of squares would lose digits
    spread = torch.arange(1, 9).reshape(-1, 1, 1)
    whole = (300 + torch.randn(4, 8, 6, 6) * spread).requires_grad_()
    part = whole.detach()[mine].requires_grad_()
    slopes = torch.randn(4, 8, 6, 6)
    one, shared = norms(), norms()
    synchronize_norms(shared, torch.device("cpu"))
    assert [type(layer) for layer in shared] == [SyncNorm, SyncNormAct]
    expected, found = one(whole), shared(part)
    torch.testing.assert_close(found, expected[mine], rtol=1e-3, atol=1e-3)
    (expected * slopes).sum().backward()
    (found * slopes[mine]).sum().backward()
    torch.testing.assert_close(part.grad, whole.grad[mine], rtol=1e-3, atol=1e-3)
    for ours, theirs in zip(shared.parameters(), one.parameters(), strict=True):
        distributed.all_reduce(ours.grad)
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    assert shared.state_dict().keys() == one.state_dict().keys()
    for ours, theirs in zip(shared.buffers(), one.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    shared.eval(), one.eval()
    torch.testing.assert_close(shared(part), one(whole)[mine], rtol=1e-3, atol=1e-3)


def check_losses(mine: slice) -> None:
    target = torch.randint(0, 3, (4, 12, 12), dtype=torch.uint8)
    target[:2, 2:] = 255  # the first process has far fewer labels
    logits = torch.randn(4, 3, 3, 3)
    for recipe in LOSSES:
        whole, part = logits.clone().requires_grad_(), logits[mine].clone().requires_grad_()
        found = upsampled_loss(part, target[mine], 4, recipe)
        found.backward()
        expected = whole_loss(whole, target, recipe)
        torch.testing.assert_close(part.grad / 2, whole.grad[mine])
        mean = found.detach().clone()
        distributed.all_reduce(mean)
        torch.testing.assert_close(mean / 2, expected)


def whole_loss(logits: Tensor, target: Tensor, recipe: Recipe) -> Tensor:
    """The loss of one process, by the plain form; its gradient is in `logits`."""
    from plain_loss import cross_entropy, dice_loss

    from atrous.models.layers import resize

    full, labels = resize(logits, 4), target.long()
    weights = full.new_tensor(recipe.class_weights) if recipe.class_weights else None
    loss = cross_entropy(full, labels, weights, recipe.label_smoothing, recipe.ohem_fraction)
    loss = loss + recipe.dice_weight * dice_loss(full, labels)
    loss.backward()
    return loss.detach()


def main(folder: str, synchronized: str) -> None:
    """What each process does."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    PartialState(cpu=True)  # begins the processes' group, as a training does
    assert num_processes() == 2
    rank = distributed.get_rank()
    mine = slice(2 * rank, 2 * rank + 2)
    check_norms(mine)
    check_losses(mine)
    recipe = replace(RECIPE, sync_batchnorm=synchronized == "True")
    train(recipe, folder, Path(folder) / "two")


@pytest.mark.slow
@pytest.mark.parametrize("synchronized", [True, False])
def test_two_processes_train_as_one_with_the_whole_batch(
    tmp_path: Path, synchronized: bool
) -> None:
    pytest.importorskip("torch.distributed")
    folder = write_shapes(tmp_path / "shapes", 6, 2, size=(48, 64))
    done = run_in_two_processes(__file__, str(folder), str(synchronized))
    assert done.returncode == 0, done.stderr
    train(replace(RECIPE, batch_size=4), str(folder), folder / "one")
    one, two = (weights(folder / name) for name in ("one", "two"))
    same = [torch.allclose(two[name], one[name], rtol=1e-3, atol=1e-4) for name in one]
    assert all(same) if synchronized else not all(same)
    losses = [
        json.loads((folder / n / "log.jsonl").read_text().splitlines()[0]) for n in ("one", "two")
    ]
    assert losses[1]["loss"] == pytest.approx(losses[0]["loss"], abs=1e-4 if synchronized else 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
