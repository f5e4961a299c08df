"""Row of `gpu.py`: photos to labels, uint8 arrays in the host's memory on both ends."""

import tempfile
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from gpu_bench import AbsentError, short
from gpu_steps import CLASSES, peer, recipe_of
from PIL import Image
from torch.nn import functional as F

from atrous.infer.runtimes.open import open_runtime
from atrous.models.catalogue import normalization
from atrous.models.create import config_from_options, create_model
from atrous.run import Normalization, Run, load_run, save_weights
from atrous.taxonomy import Taxonomy

PHOTO = Path(__file__).parent.parent / "docs/demo/street.jpg"


def photo(bench):
    cases = [(1, 9, 10)] if bench.dry else [(1, 360, 480), (1, 520, 520), (16, 360, 480)]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(bench.options["run"] or untrained(bench, Path(folder) / "run"))
        opened = {
            name: cache(partial(build, bench, run)) for name, build in contenders(bench).items()
        }
        for count, height, width in cases:
            whole = np.asarray(Image.open(PHOTO).resize((width, height)))
            images = np.stack([np.roll(whole, 20 * shift, 1) for shift in range(count)])
            builders = {name: partial(bound, build, images) for name, build in opened.items()}
            case = f"{count} of {width}x{height}"
            bench.compare(case, builders, images=count)
            with bench.surviving(f"{case}, agreement"):
                agreement(bench, case, builders)


def contenders(bench):
    """Return functions of a run folder that give a call, images to labels, by name; ours first."""
    if bench.dry:
        return {"atrous torch": partial(ours, "torch"), "eager": partial(eager, False)}
    return {
        "atrous torch:cuda": partial(ours, "torch:cuda"),
        "atrous torch:cuda-bf16": partial(ours, "torch:cuda-bf16"),
        "eager": partial(eager, False),
        "eager bf16": partial(eager, True),
        "smp": smp,
        "atrous onnxruntime:cuda": onnxruntime,
    }


def bound(open_it, images):
    return partial(open_it(), images)


def ours(name, bench, run):
    runtime = open_runtime(run, runtime=name)
    return lambda images: runtime.label(images)[0]


def onnxruntime(bench, run):
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise AbsentError("this build of onnxruntime has no CUDA")
    from atrous.export.pipeline import export_bundle

    bundle = run.parent / "fp32.onnx"
    export_bundle(run, bundle)
    return ours("onnxruntime:cuda", bench, bundle)


def eager(narrow, bench, run):
    """The network as torch runs it, upsampled at full size."""
    photo_network = load_run(run).network.to(bench.device)
    stride = float(photo_network.stride)
    enlarge = partial(F.interpolate, scale_factor=stride, mode="bilinear")
    return labelled(bench, lambda image: enlarge(photo_network(image)), narrow)


def smp(bench, run):
    """The peer's network, with random weights."""
    network = peer(bench, recipe_of(bench, 1))[0].eval()

    def full_logits(image):  # its sides must be multiples of 16
        padding = [0, -image.shape[2] % 16, 0, -image.shape[1] % 16]
        return network(F.pad(image.permute(0, 3, 1, 2).float() / 255, padding))

    return labelled(bench, full_logits, False)


def labelled(bench, full_logits, narrow):
    """Return a call, images to labels, by logits at full size."""

    @torch.inference_mode()
    def call(images):
        image = torch.from_numpy(images).to(bench.device)
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=narrow):
            labels = full_logits(image).argmax(1)[:, : images.shape[1], : images.shape[2]]
        return labels.to(torch.uint8).cpu().numpy()

    return call


def agreement(bench, case, builders):
    """Report the share of labels that equal those of the eager network in fp32."""
    expected = builders["eager"]()()
    shares = {
        name: short((build()() == expected).mean())
        for name, build in builders.items()
        if name.startswith("atrous torch") or name == "eager bf16"
    }
    bench.report(f"{case}, labels equal to the eager network's", share=shares)
    assert shares[next(iter(builders))] > 0.98


def untrained(bench, folder):
    """Write a run folder of random weights, for times alone."""
    recipe = recipe_of(bench, 8)
    if bench.dry:
        recipe = replace(recipe, backbone="test_efficientnet", aspp_channels=8)
    options = recipe.model_options(CLASSES)
    torch.manual_seed(0)
    network = create_model(config_from_options(options), CLASSES)
    mean, std = normalization(recipe.backbone)
    names = tuple(f"class {k}" for k in range(CLASSES))
    taxonomy = Taxonomy(name="random", classes=names, colors=((0, 0, 0),) * CLASSES)
    folder.mkdir(parents=True)
    save_weights(folder, network)
    statistics = Normalization(mean=mean, std=std)
    Run(model=options, normalization=statistics, taxonomy=taxonomy).write(folder)
    return folder
