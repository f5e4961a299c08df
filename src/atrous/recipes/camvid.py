"""CamVid, 11 classes, 480x360: the model that ships with the package; docs/results.md scores it."""

from atrous.train.recipe import Recipe


def camvid() -> Recipe:
    """DeepLabV3+ on whole images for 140 epochs: nine minutes on an H100 that three runs shared.

    The weights of the best validation ship, in int8.

    Command: atrous train camvid --root FOLDER --out runs/camvid
    Command: atrous export runs/camvid --int8 --out camvid.onnx
    """
    return Recipe(
        backbone="tf_efficientnet_lite2",
        output_stride=16,
        atrous_rates=(6, 12, 18),
        image_pooling=True,
        separable=True,
        aspp_channels=256,
        decoder_channels=256,
        dropout=0.1,
        auxiliary_weight=0.4,
        crop_size=(352, 480),
        scale=(0.5, 2.0),
        brightness=0.4,
        contrast=0.4,
        saturation=0.4,
        gamma=0.5,
        batch_size=16,
        num_steps=3200,
        base_lr=1e-3,
        backbone_lr_factor=0.5,
        weight_decay=0.02,
        warmup_steps=200,
        ema_decay=0.998,
        dice_weight=1.0,
        precision="bf16",
        seed=2,
        validate_every=640,
    )
