"""The peer on CamVid: segmentation_models.pytorch's DeepLabV3Plus, trained with our recipe.

The same backbone, ImageNet weights, augmentation, loss, optimiser and validation as the model that
ships; only the network is theirs (defaults at output stride 16: rates 12, 24, 36 with image
pooling, 256 channels, bilinear upsampling inside), and has no auxiliary head. Its depthwise
convolutions run through our backward pass, which computes the same gradients and saves the peer
half of its time on a CPU. Meant for a GPU.

    pip install segmentation_models_pytorch==0.6.0
    python benchmarks/peer_camvid.py CAMVID_FOLDER runs/peer

Prints hardware and versions, and a line of JSON. A stopped run goes on where it was.
"""

import json
import platform
import sys
from dataclasses import replace
from pathlib import Path

import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from atrous.models.backbones import swap_convolutions
from atrous.models.layers import crop, pad_image
from atrous.models.network import Output
from atrous.recipes import camvid
from atrous.train.loop import StepInfo, train
from atrous.weights.imagenet import imagenet_weights

BACKBONE = "tf_efficientnet_lite2"


class Peer(nn.Module):
    """Their network behind our interface: any size in, logits at stride 1 out."""

    def __init__(self) -> None:
        super().__init__()
        model = smp.DeepLabV3Plus(
            f"tu-{BACKBONE}", encoder_weights=None, encoder_output_stride=16, classes=11
        )
        model.encoder.model.load_state_dict(imagenet_weights(model.encoder.model, BACKBONE))
        swap_convolutions(model)
        self.backbone, self.decoder = model.encoder, model.decoder
        self.segmentation_head = model.segmentation_head
        self.stride = 1
        self.auxiliary_strides = ()

    def forward(self, image: Tensor) -> Output:
        features = self.backbone(pad_image(image, 16, training=self.training))
        logits = self.segmentation_head(self.decoder(features))
        return Output(crop(logits, image, 1))


def watch(status: StepInfo) -> None:
    if status.loss or status.scores:
        score = f"{status.scores.miou:.4f}" if status.scores else ""
        print(
            status.step, status.num_steps, status.seconds_per_step, status.loss, score, flush=True
        )


def main(root: str, out: Path) -> None:
    torch.manual_seed(0)
    recipe = replace(camvid(), auxiliary_weight=0.0)
    scores = train(recipe, "camvid", out, root=root, resume=True, on_step=watch, network=Peer())
    print(platform.processor() or platform.machine(), f"torch {torch.__version__}")
    print(json.dumps({"peer": f"segmentation_models.pytorch {smp.__version__}", **scores}))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
