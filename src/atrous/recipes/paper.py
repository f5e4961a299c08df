"""The training of the paper on semantic scene segmentation that this project began with."""

from atrous.train.recipe import Recipe


def paper() -> Recipe:
    """DeepLabV3 as the paper trains it: 224x224 centre crops, learning rate 1e-4, BatchNorm 0.9997.

    The paper weighs batch 8, 16 and 32, SGD, Adam and RMSProp, and ResNet-18, 50 and 101 against
    each other; the first of each stands here. It was not run to the end: COCO-Stuff needs a GPU.

    Command: atrous train paper --data FOLDER --out runs/paper
    """
    return Recipe(
        model="deeplabv3",
        backbone="resnet50",
        atrous_rates=(6, 12, 18),
        image_pooling=True,
        crop_size=(224, 224),
        center_crop=True,
        batch_size=8,
        optimizer="adam",
        base_lr=1e-4,
        weight_decay=0.0,
        schedule="constant",
        warmup_steps=1,
        batchnorm_decay=0.9997,
    )
