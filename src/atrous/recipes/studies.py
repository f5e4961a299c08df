"""The paper on semantic scene segmentation that this project began with, and its studies.

A study is several recipes by name, which `atrous compare STUDY` trains and compares. The studies of
the paper are given twice: as in the paper, for COCO-Stuff and a GPU (`paper_batch`, ...), and
scaled to CamVid and a CPU (`camvid_batch`, ...). `against_fcn` asks the paper's question: does
atrous convolution place pixels better than fully convolutional networks do? docs/studies.md has
more on cost, docs/atrous-against-fcn.md what is known of the answer.

Command: atrous compare paper_batch --data cocostuff-stuff --root FOLDER --out studies/paper_batch
Command: atrous compare camvid_batch --data camvid --root FOLDER --out studies/camvid_batch
"""

from dataclasses import replace

from atrous.recipes.camvid import camvid
from atrous.train.recipe import Recipe

RESNETS = ("resnet18", "resnet50", "resnet101")
LITES = ("tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")


def paper() -> Recipe:
    """The paper's network and training, for the stuff task of COCO-Stuff with label 0 ignored.

    ResNet-101 whose last block is repeated (section 3.1), then an ASPP of 3x3 branches at rates 1,
    6, 12 and 18 and of the image's mean, concatenated and projected by a 1x1. Batch 16, learning
    rate 1e-4, BatchNorm 0.9997, 224x224 centre crops, no jitter.

    The paper leaves open, and we chose: three repetitions, each dilated twice as much as the one
    before (DeepLabV3's blocks 5 to 7); output stride 16; Adam, without weight decay, at a constant
    rate; 256 channels; no dropout; four epochs; validation on whole images. The paper's score is
    the mean over images: scores.json has it (`per_image`) beside the pooled mIoU, which chooses the
    best weights.

    Not run: it needs a GPU.

    Command: atrous train paper --root FOLDER --out runs/paper
    """
    return Recipe(
        model="deeplabv3",
        backbone="resnet101",
        output_stride=16,
        repeated_blocks=3,
        pointwise_branch=False,
        atrous_rates=(1, 6, 12, 18),
        image_pooling=True,
        dropout=0.0,
        crop_size=(224, 224),
        center_crop=True,
        brightness=0.0,
        contrast=0.0,
        saturation=0.0,
        batch_size=16,
        num_steps=30_000,
        optimizer="adam",
        base_lr=1e-4,
        weight_decay=0.0,
        schedule="constant",
        warmup_steps=1,
        batchnorm_decay=0.9997,
        validate_every=7_500,
        checkpoint_every=1000,
    )


def paper_on_cpu() -> Recipe:
    """`paper` for CamVid on two cores.

    Lite0 replaces the ResNets, since its ImageNet weights come with a package. A BatchNorm decay of
    0.9997 would keep 94 % of the initial statistics over 200 steps.
    """
    return replace(
        paper(),
        backbone=LITES[0],
        num_steps=200,
        batchnorm_decay=0.95,
        precision="bf16",
        validate_every=200,
        checkpoint_every=100,
    )


def batch_sizes(recipe: Recipe) -> dict[str, Recipe]:
    """Batch 8, 16 and 32, each over the same number of images, and validated as often."""
    images, between = (recipe.batch_size * n for n in (recipe.num_steps, recipe.validate_every))
    return {
        f"batch{size}": replace(
            recipe, batch_size=size, num_steps=images // size, validate_every=between // size
        )
        for size in (8, 16, 32)
    }


def backbones(recipe: Recipe, names: tuple[str, ...]) -> dict[str, Recipe]:
    """Backbones of several depths: accuracy against latency."""
    return {name: replace(recipe, backbone=name) for name in names}


def repetitions(recipe: Recipe) -> dict[str, Recipe]:
    """Without, and with one to three repetitions of the backbone's last block before the ASPP."""
    return {f"blocks{count}": replace(recipe, repeated_blocks=count) for count in range(4)}


def optimizers(recipe: Recipe) -> dict[str, Recipe]:
    """SGD, Adam and RMSProp at one rate, and SGD at 100 times the rate.

    A step of SGD is as long as its gradient, so the paper's rate does not suit it.
    """
    sgd = replace(recipe, optimizer="sgd")
    return {
        "sgd": sgd,
        "sgd_tuned": replace(sgd, base_lr=100 * recipe.base_lr),
        "adam": recipe,
        "rmsprop": replace(recipe, optimizer="rmsprop"),
    }


def jitter(recipe: Recipe) -> dict[str, Recipe]:
    """Colour jitter on and off."""
    jittered = replace(recipe, brightness=0.3, contrast=0.3, saturation=0.3)
    return {"jitter": jittered, "plain": recipe}


def against_fcn() -> dict[str, Recipe]:
    """Ten networks on whole crops of CamVid for 60 epochs each: 220,160 images, for one GPU.

    FCN and U-Net on the plain backbone; PSPNet, DeepLabV2, DeepLabV3, its cascade and V3+ on one
    that is dilated to stride 16, and there the image pyramid: FCN's head over three sizes of the
    image, where DeepLabV3 has its ASPP. Widths and rates are those of the papers, but V2's rates
    and PSPNet's stride are for a stride of 8. The backbone is EfficientNet-Lite0: its weights come
    with a package, it is the cheapest, and that of `against_fcn_short`.

    All share the rest, auxiliary head included: it is the recipe `camvid`, which was tuned on V3+
    on Lite2; steps, warm-up and averaging are shortened in proportion, nothing is tuned here. The
    weights of the last step are scored, so that none are chosen by their score.

    Not run: it needs a GPU. docs/atrous-against-fcn.md estimates its time.

    Command: atrous compare against_fcn --data camvid --root FOLDER --out runs/against
    """
    steps = 60 * 367 // 16  # epochs of CamVid's split train
    shared = replace(
        camvid(),
        backbone=LITES[0],
        atrous_rates=(),
        separable=False,
        num_steps=steps,
        warmup_steps=86,
        ema_decay=0.995,
        seed=0,
        validate_every=steps,
    )
    fcn, dilated = replace(shared, output_stride=32), replace(shared, output_stride=16)
    return {
        **{name: replace(fcn, model=name) for name in ("fcn32s", "fcn16s", "fcn8s", "unet")},
        "image_pyramid": replace(dilated, model="fcn", pyramid_scales=(1.0, 0.75, 0.5)),
        "pspnet": replace(dilated, model="pspnet", decoder_channels=512),
        "deeplabv2": replace(dilated, model="deeplabv2", atrous_rates=(3, 6, 9, 12)),
        **{
            name: replace(dilated, model=name)
            for name in ("deeplabv3_cascade", "deeplabv3", "deeplabv3plus")
        },
    }


def against_fcn_with_frrn() -> dict[str, Recipe]:
    """`against_fcn`, and FRRN-A, which starts from random weights and has no auxiliary head.

    FRRN-A takes three times the multiply-adds of the other ten together, hence a study of its own;
    in the folder of `against_fcn`, it trains FRRN-A alone.

    Command: atrous compare against_fcn_with_frrn --data camvid --root FOLDER --out runs/against
    """
    study = against_fcn()
    frrn = replace(
        study["unet"],
        model="frrn_a",
        backbone="none",
        pretrained=False,
        output_stride=16,
        auxiliary_weight=0.0,
    )
    return {**study, "frrn_a": frrn}


def against_fcn_short() -> dict[str, Recipe]:
    """Eight networks for 11 epochs of small crops on a CPU: which one starts fast.

    Images are of half size; the last weights are scored. FCN and U-Net keep the backbone's stride
    of 32, as in their papers; all others dilate it to 16 (PSPNet's paper: 8). Rates are half of the
    paper's, as the crops are, and the decoder of V3+ is half as wide; no network has an auxiliary
    head. Values are those of the scores in docs/atrous-against-fcn.md, and do not follow `camvid`.

    Command: atrous compare against_fcn_short --data camvid --root FOLDER --out runs/short
    """
    shared = Recipe(
        backbone=LITES[0],
        crop_size=(192, 256),
        scale=(0.45, 1.0),
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        gamma=0.5,
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
    )
    fcn, dilated = replace(shared, output_stride=32), replace(shared, output_stride=16)
    pyramid = replace(dilated, atrous_rates=(3, 6, 9))
    return {
        **{name: replace(fcn, model=name) for name in ("fcn32s", "fcn16s", "fcn8s", "unet")},
        **{name: replace(dilated, model=name) for name in ("pspnet", "deeplabv3_cascade")},
        "deeplabv3": replace(pyramid, model="deeplabv3"),
        "deeplabv3plus": replace(pyramid, model="deeplabv3plus", decoder_channels=128),
    }
