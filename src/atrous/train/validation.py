"""Scores of a network during training, labelled as `evaluate` does, in float32."""

from collections.abc import Sequence

from accelerate import Accelerator
from accelerate.utils import gather_object

from atrous.data.sample import Sample
from atrous.evaluation.score import Tally, count, predict_batches
from atrous.infer.runtimes.torch_network import TorchNetwork
from atrous.metrics import Confusion
from atrous.models.photo import PhotoNetwork


def validate(
    photo: PhotoNetwork,
    split: Sequence[Sample],
    num_classes: int,
    accelerator: Accelerator,
    indices: Sequence[int] | None = None,
) -> Confusion:
    """Count the confusions of a split at native size; each process labels its share of it.

    Args:
        photo: the network.
        split: images and labels.
        num_classes: K.
        accelerator: of this process.
        indices: of the samples that are labelled; all if left out.
    """
    photo.eval()
    indices = range(len(split)) if indices is None else indices
    mine = indices[accelerator.process_index :: accelerator.num_processes]
    network = TorchNetwork(photo, photo.stride, accelerator.device, aligned=photo.aligned)
    confusion = Confusion(num_classes)
    images = predict_batches(network.label, network.batch_size, split, mine)
    count(images, Tally(confusion), len(mine))
    parts: list[Confusion] = gather_object([confusion])
    whole, *others = parts
    for part in others:
        whole.merge(part)
    return whole
