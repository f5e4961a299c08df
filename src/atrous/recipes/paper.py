"""The paper on semantic scene segmentation that this project began with, and its studies.

A study is several recipes by name, which `atrous compare STUDY` trains and weighs against each
other. Those of the paper stand here twice: as it has them, for COCO-Stuff and a GPU, and scaled to
CamVid and a CPU. `against_fcn` asks the paper's question: does atrous convolution place pixels
better than fully convolutional networks do? docs/studies.md has the commands,
docs/atrous-against-fcn.md the answer.
"""

from dataclasses import replace

from atrous.train.recipe import Recipe


def paper() -> Recipe:
    """DeepLabV3 as the paper trains it: 224x224 centre crops, learning rate 1e-4, BatchNorm 0.9997.

    The number of steps is ours: four epochs of COCO-Stuff. Not run: it needs a GPU.

    Command: atrous train paper --data cocostuff-stuff --root FOLDER --out runs/paper
    """
    return Recipe(
        model="deeplabv3",
        backbone="resnet50",
        atrous_rates=(6, 12, 18),
        image_pooling=True,
        crop_size=(224, 224),
        center_crop=True,
        batch_size=8,
        num_steps=60_000,
        optimizer="adam",
        base_lr=1e-4,
        weight_decay=0.0,
        schedule="constant",
        warmup_steps=1,
        batchnorm_decay=0.9997,
        validate_every=15_000,
        checkpoint_every=1000,
    )


def paper_batch() -> dict[str, Recipe]:
    """Batch 8, 16 and 32, each over the same number of images.

    Command: atrous compare paper_batch --data cocostuff-stuff --root FOLDER --out studies/batch
    """
    return _batches(paper())


def paper_backbone() -> dict[str, Recipe]:
    """ResNet-18, 50 and 101: accuracy against latency.

    Command: atrous compare paper_backbone --data cocostuff-stuff --root FOLDER --out studies/depth
    """
    return _backbones(paper(), ("resnet18", "resnet50", "resnet101"))


def paper_optimizer() -> dict[str, Recipe]:
    """SGD, Adam and RMSProp at one rate; SGD's steps are as long as its gradients: once at 100 x.

    Command: atrous compare paper_optimizer --data cocostuff-stuff --root FOLDER --out studies/optim
    """
    return _optimizers(paper())


def paper_jitter() -> dict[str, Recipe]:
    """Colour jitter on and off.

    Command: atrous compare paper_jitter --data cocostuff-stuff --root FOLDER --out studies/jitter
    """
    return _jitter(paper())


def camvid_batch() -> dict[str, Recipe]:
    """`paper_batch` on a CPU.

    Command: atrous compare camvid_batch --data camvid --root FOLDER --out studies/camvid_batch
    """
    return _batches(_paper_on_cpu())


def camvid_backbone() -> dict[str, Recipe]:
    """`paper_backbone` on a CPU: EfficientNet-Lite0, 1 and 2.

    Command: atrous compare camvid_backbone --data camvid --root FOLDER --out studies/camvid_depth
    """
    lites = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
    return _backbones(_paper_on_cpu(), lites)


def camvid_optimizer() -> dict[str, Recipe]:
    """`paper_optimizer` on a CPU.

    Command: atrous compare camvid_optimizer --data camvid --root FOLDER --out studies/camvid_optim
    """
    return _optimizers(_paper_on_cpu())


def camvid_jitter() -> dict[str, Recipe]:
    """`paper_jitter` on a CPU.

    Command: atrous compare camvid_jitter --data camvid --root FOLDER --out studies/camvid_jitter
    """
    return _jitter(_paper_on_cpu())


def against_fcn() -> dict[str, Recipe]:
    """FCN, U-Net and PSPNet against DeepLabV3, its cascade and V3+: one backbone, one budget.

    The recipe is `camvid_small`'s, shorter. FCN and U-Net keep the backbone's stride of 32, as in
    their papers; all others dilate it to 16 (PSPNet's paper: 8). Rates are half of the paper's, as
    the crops are, and the decoder of V3+ half as wide, for the CPU; no network has an auxiliary
    head. Cost and scores stand in docs/atrous-against-fcn.md.

    Command: atrous compare against_fcn --data camvid --root FOLDER --out runs/against
    """
    fcn = replace(_against(), output_stride=32)
    dilated = replace(_against(), output_stride=16)
    pyramid = replace(dilated, atrous_rates=(3, 6, 9))
    return {
        "fcn32s": replace(fcn, model="fcn32s"),
        "fcn16s": replace(fcn, model="fcn16s"),
        "fcn8s": replace(fcn, model="fcn8s"),
        "unet": replace(fcn, model="unet"),
        "pspnet": replace(dilated, model="pspnet"),
        "deeplabv3_cascade": replace(dilated, model="deeplabv3_cascade"),
        "deeplabv3": replace(pyramid, model="deeplabv3"),
        "deeplabv3plus": replace(pyramid, model="deeplabv3plus", decoder_channels=128),
    }


def _paper_on_cpu() -> Recipe:
    """`paper` for CamVid on two cores.

    Lite0 stands in for the ResNets, since its ImageNet weights come with a package. A BatchNorm
    decay of 0.9997 would keep 89 % of what its statistics start with over 400 steps.
    """
    return replace(
        paper(),
        backbone="tf_efficientnet_lite0",
        num_steps=400,
        batchnorm_decay=0.99,
        precision="bf16",
        validate_every=400,
        checkpoint_every=100,
    )


def _against() -> Recipe:
    """What the networks of `against_fcn` share; the last weights are scored, none are chosen."""
    return Recipe(
        backbone="tf_efficientnet_lite0",
        crop_size=(192, 256),
        scale=(0.45, 1.0),
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        gamma=0.5,
        batch_size=8,
        num_steps=500,
        base_lr=1e-3,
        backbone_lr_factor=0.5,
        weight_decay=0.02,
        warmup_steps=50,
        ema_decay=0.99,
        dice_weight=1.0,
        precision="bf16",
        num_workers=0,
        validate_every=500,
        checkpoint_every=100,
    )


def _batches(recipe: Recipe) -> dict[str, Recipe]:
    images = recipe.batch_size * recipe.num_steps
    return {
        f"batch{size}": replace(recipe, batch_size=size, num_steps=images // size)
        for size in (8, 16, 32)
    }


def _backbones(recipe: Recipe, names: tuple[str, ...]) -> dict[str, Recipe]:
    return {name: replace(recipe, backbone=name) for name in names}


def _optimizers(recipe: Recipe) -> dict[str, Recipe]:
    """All at the paper's rate, and SGD once more at a rate that suits it."""
    sgd = replace(recipe, optimizer="sgd")
    return {
        "sgd": sgd,
        "sgd_tuned": replace(sgd, base_lr=100 * recipe.base_lr),
        "adam": recipe,
        "rmsprop": replace(recipe, optimizer="rmsprop"),
    }


def _jitter(recipe: Recipe) -> dict[str, Recipe]:
    return {
        "jitter": recipe,
        "plain": replace(recipe, brightness=0.0, contrast=0.0, saturation=0.0),
    }
