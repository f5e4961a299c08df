"""Row of `gpu.py`: the network alone and the training step, beside segmentation_models.pytorch."""

from dataclasses import replace
from itertools import cycle

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from gpu_bench import AbsentError
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

from atrous.models.create import config_from_options, create_model
from atrous.models.layers import SeparableConv, resize
from atrous.models.network import Output
from atrous.models.normalization import swap_norms
from atrous.recipes import camvid
from atrous.train.determinism import algorithms
from atrous.train.training import Training

CLASSES = 11
COLORS = (0, 1, 2)


class Tiny(nn.Module):
    """What the interpreter runs in seconds: each kind of layer once."""

    stride = 4
    auxiliary_strides = ()

    def __init__(self, classes=CLASSES):
        super().__init__()
        norm = BatchNormAct2d(5, act_layer=nn.ReLU6)
        self.backbone = nn.Sequential(nn.Conv2d(3, 5, 8, 8), norm)
        swap_norms(self.backbone)
        self.decoder = SeparableConv(5, 5, dilation=2)
        self.head = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(5, classes, 1))

    def forward(self, image):
        return Output(self.head(resize(self.decoder(self.backbone(image)), 2)))


def step(bench):
    for batch in (1,) if bench.dry else (8, 32):
        with bench.surviving(f"network, batch {batch}"):
            networks(bench, batch)
        with bench.surviving(f"batch {batch}"):
            steps(bench, batch)
    with bench.surviving("profile"):
        profiles(bench, 1 if bench.dry else 32)


def networks(bench, batch):
    """Forward and backward pass from a normalised image; no loss, no optimiser."""
    recipe = recipe_of(bench, batch)
    image = batches_of(bench, recipe, 1)[0][0]

    def ours():
        training = training_of(bench, recipe)
        training.wrapped.train()
        return alone(training, image)

    def theirs():
        network, image = peer(bench, recipe)
        return lambda: bf16(bench, network, image).float().sum().backward()

    builders = {"atrous": ours, "smp": theirs}
    bench.compare(f"network alone, batch {batch}", builders, images=batch, memory=builders)


def alone(training, image):
    """Return a call of the network's passes, with the casts of the training."""

    def call():
        output = training.forward(training.photo.normalize(image, training.dtype))
        training.accelerator.backward(output.logits.float().sum())

    return call


def steps(bench, batch):
    """From a batch on the device to updated weights."""
    recipe = recipe_of(bench, batch)
    builders = {
        "atrous": lambda: our_step(bench, recipe),
        "smp": lambda: their_step(bench, recipe, benchmark=False),
        "smp, cudnn.benchmark": lambda: their_step(bench, recipe, benchmark=True),
        "atrous, no graph": lambda: our_step(bench, replace(recipe, cuda_graph=False)),
        "atrous, not deterministic": lambda: our_step(bench, replace(recipe, deterministic=False)),
    }
    eager = "smp", "atrous, no graph"
    bench.compare(f"training step, batch {batch}", builders, images=batch, memory=eager)


def profiles(bench, batch):
    """Where the time of a step goes."""
    for name, graph in [("with graph", True), ("without graph", False)][: 1 if bench.dry else 2]:
        call = our_step(bench, replace(recipe_of(bench, batch), cuda_graph=graph))
        for _ in range(1 if bench.dry else 6):
            call()
        bench.profile(f"profile of a step, batch {batch}, {name}", call)


def our_step(bench, recipe):
    training, loader = training_of(bench, recipe), cycle(batches_of(bench, recipe, 2))

    def call():
        with deterministic(recipe):
            training.advance(loader)

    return call


def deterministic(recipe):
    """Choose algorithms as a training of the recipe does."""
    return algorithms(deterministic=recipe.deterministic)


def training_of(bench, recipe, classes=CLASSES):
    AcceleratorState._reset_state()
    precision = "no" if recipe.precision == "fp32" else recipe.precision
    accelerator = Accelerator(mixed_precision=precision, cpu=bench.dry)
    network = network_of(bench, recipe, classes)
    return Training(recipe, classes, COLORS, accelerator, network, fresh=False, notify=bench.notice)


def network_of(bench, recipe, classes=CLASSES):
    """Return the recipe's network with the same random weights at each call."""
    torch.manual_seed(0)
    options = recipe.model_options(classes)
    return Tiny(classes) if bench.dry else create_model(config_from_options(options), classes)


def recipe_of(bench, batch):
    """V3+ on Lite2: 128 channels, separable, rates 3, 6, 9, no image pooling, 352x480, Dice."""
    narrow = replace(
        camvid(),
        atrous_rates=(3, 6, 9),
        image_pooling=False,
        aspp_channels=128,
        decoder_channels=128,
        dropout=0.0,
        auxiliary_weight=0.0,
        batch_size=batch,
        num_steps=100_000,
    )
    return replace(narrow, crop_size=(8, 16)) if bench.dry else narrow


def batches_of(bench, recipe, count):
    """Return images (B, h, w, 3) and targets (B, h, w), uint8, on the device."""
    shape = (recipe.batch_size, *recipe.crop_size)
    return [(bench.integers(256, *shape, 3), bench.integers(CLASSES, *shape)) for _ in range(count)]


def their_step(bench, recipe, *, benchmark):
    network, image = peer(bench, recipe)
    optimizer = torch.optim.AdamW(network.parameters(), recipe.base_lr)
    target = bench.integers(CLASSES, recipe.batch_size, *recipe.crop_size).long()

    def call():
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False
        torch.backends.cudnn.benchmark = benchmark
        with torch.autocast(bench.device.type, torch.bfloat16):
            loss = F.cross_entropy(network(image), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.backends.cudnn.benchmark = False

    return call


def peer(bench, recipe):
    """Return the peer's network and a batch, channels last."""
    if bench.dry:
        network = nn.Sequential(nn.Conv2d(3, CLASSES, 3, padding=1))
    else:
        try:
            import segmentation_models_pytorch as smp
        except ModuleNotFoundError as error:
            raise AbsentError(str(error)) from None
        network = smp.DeepLabV3Plus(
            f"tu-{recipe.backbone}",
            encoder_weights=None,
            encoder_output_stride=recipe.output_stride,
            decoder_channels=recipe.decoder_channels,
            decoder_atrous_rates=recipe.atrous_rates,
            classes=CLASSES,
        )
    network.train().to(bench.device, memory_format=torch.channels_last)
    return network, bench.normal(recipe.batch_size, 3, *recipe.crop_size)


def bf16(bench, network, image):
    with torch.autocast(bench.device.type, torch.bfloat16):
        return network(image)
