"""CamVid, 11 classes, 480x360: the model that ships with the package, in two stages.

Half of the time goes into half-size images, which teach the classes at a quarter of the cost; the
other half into full-size ones, which teach thin objects. docs/results.md has the scores.
"""

from dataclasses import replace

from atrous.train.recipe import Recipe


def camvid_small() -> Recipe:
    """Stage 1: half-size images.

    Command: atrous train camvid_small --root FOLDER --out runs/small
    """
    return replace(
        half_size(),
        backbone="tf_efficientnet_lite2",
        output_stride=16,
        atrous_rates=(3, 6, 9),
        image_pooling=False,
        separable=True,
        aspp_channels=128,
        decoder_channels=128,
        dropout=0.0,
        batch_size=12,
        num_steps=1000,
        warmup_steps=100,
        validate_every=250,
    )


def camvid() -> Recipe:
    """Stage 2: full-size images, from the weights of stage 1.

    Command: atrous train camvid --root FOLDER --init runs/small --out runs/camvid
    """
    return replace(
        camvid_small(),
        crop_size=(352, 480),
        scale=(0.5, 2.0),
        batch_size=8,
        num_steps=550,
        base_lr=5e-4,
        warmup_steps=30,
        validate_every=110,
        checkpoint_every=55,
    )


def half_size() -> Recipe:
    """Crops, augmentation, optimiser and loss of trainings on half-size images."""
    return Recipe(
        crop_size=(192, 256),
        scale=(0.45, 1.0),
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        gamma=0.5,
        batch_size=8,
        base_lr=1e-3,
        backbone_lr_factor=0.5,
        weight_decay=0.02,
        ema_decay=0.99,
        dice_weight=1.0,
        precision="bf16",
        checkpoint_every=100,
    )
