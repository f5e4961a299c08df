"""The calls of the command line whose outputs are recorded, and the folders they run in."""

import io
import json
import shutil
import zipfile
import zlib
from collections.abc import Callable
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from color_bundle import COLORS, write_color_bundle
from doctor_folders import PALETTE, mask, photo, resized, save, write_images, write_index, write_rgb
from geotiff import write_tiff
from other_networks import Vainf, random_network
from panoptic_data import write_panoptic_data
from PIL import Image
from rasterio.transform import from_origin
from safetensors.torch import load_file, save_file

from atrous.cli import main

STREET = Path(__file__).parents[2] / "docs" / "demo" / "street.jpg"

Prepare = Callable[[Path], None]


@dataclass(frozen=True)
class Call:
    """A call of the command line."""

    name: str
    line: str
    """The arguments, with spaces between them. SERVER is the address of a server with /set.zip."""
    prepare: tuple[Prepare, ...] = ()
    """What writes into the current folder beforehand."""
    by_network: bool = False
    """Whether a trained network decided the numbers, which are not the same on all processors."""
    measured: bool = False
    """Whether it prints how long something takes."""
    needs_run: bool = False
    """Whether there shall be a run folder, run/."""
    without: tuple[str, ...] = ()
    """Packages that shall seem not to be installed."""
    process: bool = False
    """Whether it runs in a process of its own."""

    @property
    def arguments(self) -> list[str]:
        return self.line.split()


TINY = (
    "--no-pretrained --model fcn32s --backbone resnet18 --crop-size 32 48 --batch-size 2"
    " --num-workers 0 --warmup-steps 1"
)


def paint() -> np.ndarray:
    """A photo (30, 41, 3): red at the left, green in the middle, blue at the right."""
    image = np.zeros((30, 41, 3), np.uint8)
    image[:, :16, 0], image[:, 16:28, 1], image[:, 28:, 2] = 255, 255, 255
    return image


def bundle(here: Path) -> None:
    """paint.onnx, which knows red, green, blue and grey."""
    write_color_bundle(here / "paint.onnx")


def two_bundles(here: Path) -> None:
    """one.onnx sees all; two.onnx takes blue for grey."""
    write_color_bundle(here / "one.onnx")
    import onnx

    model = onnx.load(here / "one.onnx")
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "bias")
    values = np.array(onnx.numpy_helper.to_array(bias))
    values[2] -= 100_000
    bias.CopyFrom(onnx.numpy_helper.from_array(values, "bias"))
    onnx.save(model, here / "two.onnx")


def photos(here: Path) -> None:
    """photo.png."""
    save(here / "photo.png", paint())


def photo_folder(here: Path) -> None:
    """Photos of several formats, folders and names, one that is broken, and what is none."""
    for name in ("a/photo.jpg", "a/photo.png", "b/c.bmp"):
        save(here / "in" / name, paint())
    (here / "in/b/broken.png").write_text("hello")
    (here / "in/b/raw.CR2").write_bytes(b"II*\0 raw")
    (here / "in/notes.txt").write_text("no photo")


def rasters(here: Path) -> None:
    """field.tif with coordinates, of 8 bits; deep.tif of 16 bits and blue before red."""
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 2, 2)}
    write_tiff(here / "field.tif", paint(), **place)
    write_tiff(here / "deep.tif", paint()[..., ::-1].astype(np.uint16) * 4, **place)


def video(here: Path) -> None:
    """clip.mkv, of three frames."""
    with av.open(here / "clip.mkv", "w") as container:
        stream = container.add_stream("ffv1", 10)
        stream.height, stream.width, stream.pix_fmt = 30, 42, "bgr0"
        for number in range(3):
            image = np.roll(paint()[:, [0, *range(41)]], 6 * number, axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image).reformat(format="bgr0")))
        container.mux(stream.encode())


def street(here: Path) -> None:
    """street.jpg, the demo photo."""
    shutil.copy(STREET, here)


def data(here: Path) -> None:
    """data/: eight photos of stripes, and masks that are nearly what paint.onnx sees."""
    for number in range(8):
        image = np.roll(paint(), 4 * number, axis=1)
        label = image.argmax(2).astype(np.uint8)
        label[0], label[1, : 3 * number] = 255, 3
        save(here / f"data/images/{number}.png", image)
        save(here / f"data/masks/{number}.png", label)
    classes = ",\n".join(
        f'  {{ name = "{name}", color = {list(color)}, group = "{group}" }}'
        for name, color, group in zip(
            ("red", "green", "blue", "grey"), COLORS, ("warm", "cold", "cold", "none"), strict=True
        )
    )
    (here / "data/dataset.toml").write_text(
        f'name = "paint"\nlicence = "CC0-1.0"\n\n[labels]\nencoding = "index"\nignore = [255]\n'
        f"classes = [\n{classes},\n]\n\n"
        '[splits.val]\nimages = "images/{key}.png"\nlabels = "masks/{key}.png"\n'
    )


def predictions(here: Path) -> None:
    """good/ and bad/, label images for data/; some pixels of theirs are wrong."""
    random = np.random.default_rng(0)
    for name, share in (("good", 0.1), ("bad", 0.4)):
        for number in range(8):
            label = np.roll(paint(), 4 * number, axis=1).argmax(2)
            wrong = random.random(label.shape) < share
            save(here / f"{name}/{number}.png", np.where(wrong, 2 - label, label).astype(np.uint8))


def lacking(here: Path) -> None:
    """Take a file from bad/."""
    (here / "bad/3.png").unlink()


def counted(here: Path) -> None:
    """1.npz and 2.npz, the counts of the two halves of data/."""
    for part in "12":
        call = f"evaluate data --predictions good --shard {part}/2 --save {part}.npz"
        assert main(call.split()) == 0


def panoptic(here: Path) -> None:
    """panoptic/: truth, a result, and its JSON."""
    write_panoptic_data(here / "panoptic")


def shapes(here: Path) -> None:
    """shapes/, which `atrous data shapes` makes."""
    assert main(["data", "shapes", "shapes", "--train", "4", "--val", "3"]) == 0


def healthy(here: Path) -> None:
    """mine/: images, and masks of grey ids."""
    write_index(here / "mine")


def described(here: Path) -> None:
    """mine/ with a dataset.toml of the doctor's."""
    healthy(here)
    assert main(["data", "doctor", "mine", "--write"]) == 0


def colors(here: Path) -> None:
    """mine/, with masks of colours: some blurred, one too small, one broken, one without photo."""
    folder = here / "mine"
    write_rgb(folder, 14)
    for number in (1, 4, 7):
        save(folder / f"masks/{number:03}.png", resized(PALETTE[mask(number)]))
    save(folder / "masks/009.png", PALETTE[mask(9)][:-8])
    (folder / "masks/010.png").write_bytes(b"no mask")
    (folder / "images/011.png").unlink()


def ids(here: Path) -> None:
    """mine/ in splits: names of classes, stray ids, an empty mask, photos doubled and leaked."""
    folder = here / "mine"
    for split, start, count in (("train", 0, 8), ("val", 20, 4)):
        for number in range(start, start + count):
            save(folder / f"{split}/images/{number:03}.png", photo(number))
            save(folder / f"{split}/masks/{number:03}.png", mask(number, (0, 1, 2, 3)))
    save(folder / "val/images/020.png", photo(2))
    save(folder / "train/images/005.png", photo(4))
    save(folder / "train/masks/005.png", mask(4, (0, 1, 2, 3)))
    save(folder / "train/masks/006.png", np.zeros((40, 56), np.uint8))
    save(folder / "train/masks/007.png", mask(7, (0, 1, 2, 255, 77)))
    Image.fromarray(photo(30)).save(folder / "val/images/030.png")
    (folder / "classes.txt").write_text("ground\ntree\nroof\nroad\n")


def palettes(here: Path) -> None:
    """mine/: palette masks of two classes, and a photo that its EXIF turns."""
    folder = here / "mine"
    write_images(folder, 6, suffix="jpg")
    for number in range(6):
        save(folder / f"masks/{number:03}.png", mask(number, (0, 1)), PALETTE)
    turned = Image.Exif()
    turned[0x0112] = 6
    save(folder / "images/003.jpg", photo(3), exif=turned)


def coco(here: Path) -> None:
    """mine/, COCO JSON of instances: of polygons, a crowd, one photo lacking, one unlabelled."""
    images, annotations = [], []
    for number in range(5):
        if number != 3:
            save(here / f"mine/images/{number}.jpg", photo(number))
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 40, "width": 56})
        for category, (x, y, w, h) in ((1, (2 + number, 3, 18, 15)), (4, (30, 12, 12, 10))):
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            entry = {"id": len(annotations), "image_id": number, "category_id": category}
            entry |= {"segmentation": [outline], "bbox": [x, y, w, h], "iscrowd": 0}
            annotations.append(entry)
    table = {"images": images, "annotations": annotations[:8]}
    table["categories"] = [{"id": 1, "name": "road"}, {"id": 4, "name": "car"}]
    (here / "mine/all.json").write_text(json.dumps(table))


def empty(here: Path) -> None:
    """mine/, of nothing."""
    (here / "mine").mkdir()


def unusable(here: Path) -> None:
    """mine/, without one mask that can be read."""
    write_index(here / "mine", 3)
    for path in (here / "mine/masks").iterdir():
        path.write_bytes(b"no mask")


def fetchable(here: Path) -> None:
    """mine.toml, whose archive SERVER has; --mirror takes the place of the address in it."""
    (here / "mine.toml").write_text(
        'name = "mine"\nlicence = "CC0-1.0"\n[labels]\nencoding = "index"\nclasses = ["a"]\n'
        '[splits.val]\nimages = "val/{key}.jpg"\nlabels = "masks/{key}.png"\n'
        '[[archives]]\nurl = "https://example.org/set.zip"\n'
    )


def archive() -> bytes:
    """What the server has as /set.zip."""
    buffer, picture = io.BytesIO(), io.BytesIO()
    Image.fromarray(photo(0)).save(picture, "PNG")
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("val/0.jpg", "a photo" * 100_000)
        file.writestr("masks/0.png", picture.getvalue())
        file.writestr("readme.txt", "of no use here")
    return buffer.getvalue()


def checkpoint(here: Path) -> None:
    """best.pth, a network of VainF's project."""
    state = random_network(Vainf, 0, 21, plus=True).state_dict()
    torch.save({"model_state": state, "cur_itrs": 3}, here / "best.pth")


def no_checkpoint(here: Path) -> None:
    """odd.pth, which holds no weights."""
    torch.save({"epoch": 3}, here / "odd.pth")


def write_run(folder: Path) -> Path:
    """Make a run folder, run/, and give each tensor values that its name and shape decide."""
    out = folder / "run"
    with chdir(folder):
        assert main(["data", "shapes", "shapes", "--train", "2", "--val", "1"]) == 0
        assert main(f"train plain --data shapes --out run {TINY} --num-steps 1".split()) == 0
    tensors = load_file(out / "best.safetensors")
    for name, tensor in tensors.items():
        random = np.random.default_rng(zlib.crc32(name.encode()))
        if tensor.dim() > 1:
            spread = (1.5 / tensor[0].numel()) ** 0.5
            values = random.normal(0, spread, tensor.shape)
        else:
            values = random.uniform(0.5, 1, tensor.shape) - name.endswith(("bias", "mean"))
        tensors[name] = torch.from_numpy(np.asarray(values)).to(tensor.dtype)
    save_file(tensors, out / "best.safetensors")
    return out


SEGMENT = "segment photo.png --model paint.onnx"
COMPARE = "compare one.onnx two.onnx --data data --out out"

CALLS = (
    # Help, and what is no call at all
    Call("help", "--help", process=True),
    Call("version", "--version"),
    *(
        Call(f"help_{name.replace(' ', '_')}", f"{name} --help")
        for name in (
            *("segment", "evaluate", "compare", "train", "export", "convert", "models", "bench"),
            *("data", "data doctor", "data list", "data shapes", "data pack", "data fetch"),
            "data export",
        )
    ),
    Call("unknown_command", "segmnt photo.png", process=True),
    Call("unknown_option", "segment photo.png --oot x", (photos,)),
    # segment
    Call("segment", SEGMENT, (bundle, photos), process=True),
    Call("segment_json", f"{SEGMENT} missing.png --json", (bundle, photos)),
    Call("segment_folder", "segment in --model paint.onnx --out out", (bundle, photo_folder)),
    Call(
        "segment_flip_scales",
        f"{SEGMENT} --flip --scales 1 1.5 --tile 128",
        (bundle, photos),
        by_network=True,
    ),
    Call(
        "segment_write",
        f"{SEGMENT} --write polygons rle confidence masks cutouts",
        (bundle, photos),
    ),
    Call("segment_crf", f"{SEGMENT} --crf kazuto --json", (bundle, photos)),
    Call("segment_raster", "segment field.tif --model paint.onnx --tile 128", (bundle, rasters)),
    Call(
        "segment_raster_json",
        "segment deep.tif --model paint.onnx --bands 3 2 1 --range 0 1020 --json",
        (bundle, rasters),
    ),
    Call("segment_video", "segment clip.mkv --model paint.onnx", (bundle, video)),
    Call(
        "segment_video_json",
        "segment clip.mkv --model paint.onnx --frames 2 --json",
        (bundle, video),
    ),
    Call("segment_street", "segment street.jpg", (street,), by_network=True),
    Call("segment_street_json", "segment street.jpg --json --out o", (street,), by_network=True),
    Call("segment_no_photo", "segment photo.pgn --model paint.onnx", (bundle, photos)),
    Call("segment_no_model", "segment photo.png --model nonsense", (photos,)),
    Call("segment_no_raster", "segment deep.tif --model paint.onnx", (bundle, rasters)),
    # evaluate
    Call("evaluate", "evaluate paint.onnx data", (bundle, data)),
    Call(
        "evaluate_json",
        "evaluate paint.onnx data --protocol mmseg --boundary --calibration --tree --pairs 3"
        " --json",
        (bundle, data),
    ),
    Call(
        "evaluate_options",
        "evaluate paint.onnx data --boundary --calibration --tree --pairs 3 --flip --crf deeplab",
        (bundle, data),
        by_network=True,
    ),
    *(
        Call(
            f"evaluate_{protocol.replace('-', '_')}",
            f"evaluate data --predictions bad --protocol {protocol}",
            (data, predictions),
        )
        for protocol in ("detectron2", "kazuto", "torchvision", "per-image")
    ),
    Call(
        "evaluate_against",
        "evaluate data --predictions good --against bad",
        (data, predictions),
    ),
    Call(
        "evaluate_against_json",
        "evaluate data --predictions good --against bad --protocol per-image --json",
        (data, predictions),
    ),
    Call(
        "evaluate_ids",
        "evaluate data --predictions good --ids dataset --pairs 2",
        (data, predictions),
    ),
    Call("evaluate_no_file", "evaluate data --predictions bad", (data, predictions, lacking)),
    Call("evaluate_no_protocol", "evaluate paint.onnx data --protocol coco", (bundle, data)),
    Call(
        "evaluate_part",
        "evaluate data --predictions good --shard 1/2 --save part.npz",
        (data, predictions),
    ),
    Call("evaluate_merge", "evaluate data --merge 1.npz 2.npz", (data, predictions, counted)),
    Call("evaluate_panoptic", "evaluate panoptic --predictions panoptic/result.json", (panoptic,)),
    Call(
        "evaluate_panoptic_json",
        "evaluate panoptic --predictions panoptic/result.json --json",
        (panoptic,),
    ),
    Call(
        "evaluate_run",
        "evaluate run shapes --json --threads 1",
        (shapes,),
        by_network=True,
        needs_run=True,
    ),
    Call("evaluate_other_classes", "evaluate paint.onnx shapes", (bundle, shapes)),
    # compare
    Call("compare", f"{COMPARE} --no-latency", (two_bundles, data)),
    Call("compare_json", f"{COMPARE} --no-latency --json", (two_bundles, data)),
    Call(
        "compare_latency",
        f"{COMPARE} --rounds 1 --threads 1 --runtime onnxruntime --size 60 80",
        (two_bundles, data),
        measured=True,
    ),
    Call("compare_one", "compare one.onnx --data data", (two_bundles, data)),
    # data
    Call("data_shapes", "data shapes shapes --train 2 --val 1"),
    Call("data_list", "data list", process=True),
    Call("data_list_json", "data list --json"),
    Call(
        "data_export",
        "data export shapes --split val --format yolo --out out --tolerance 3",
        (shapes,),
    ),
    Call(
        "data_export_model",
        "data export in --format coco --out out --model paint.onnx --tolerance 1",
        (bundle, photo_folder),
    ),
    Call("data_export_no_labels", "data export in --format cvat --out out", (photo_folder,)),
    Call("data_pack", "data pack shapes --out shards", (shapes,)),
    Call("data_pack_no_split", "data pack shapes --out shards --split tset", (shapes,)),
    Call("data_fetch", "data fetch mine.toml --root root --yes --mirror SERVER", (fetchable,)),
    Call("data_fetch_no_split", "data fetch mine.toml --root root --split tset", (fetchable,)),
    Call("data_fetch_by_hand", "data fetch cityscapes --root root"),
    Call("doctor", "data doctor mine", (healthy,)),
    Call("doctor_colors", "data doctor mine --html page.html", (colors,)),
    Call("doctor_colors_write", "data doctor mine --write --json", (colors,)),
    Call("doctor_ids", "data doctor mine", (ids,)),
    Call("doctor_ids_json", "data doctor mine --json", (ids,)),
    Call("doctor_palettes", "data doctor mine --write", (palettes,)),
    Call("doctor_coco", "data doctor mine --write", (coco,)),
    Call("doctor_panoptic", "data doctor panoptic", (panoptic,)),
    Call("doctor_described", "data doctor mine", (described,)),
    Call("doctor_described_write", "data doctor mine --write", (described,)),
    Call("doctor_empty", "data doctor mine", (empty,)),
    Call("doctor_unusable", "data doctor mine --write", (unusable,)),
    # models and convert
    Call("models", "models"),
    Call("models_json", "models --json"),
    Call("models_one", "models google/deeplabv3plus_mobilenetv2_ade20k"),
    Call("models_unknown", "models camvit"),
    Call("convert", "convert best.pth --data voc2012 --out theirs", (checkpoint,)),
    Call("convert_odd", "convert odd.pth --data voc2012 --out theirs", (no_checkpoint,)),
    Call("convert_no_name", "convert torchvision/fcn_resnet5 --out theirs"),
    # train and export
    Call(
        "train",
        f"train plain --data shapes --out mine --base-lr 1e-9 {TINY} --num-steps 1",
        (shapes,),
        by_network=True,
    ),
    Call(
        "train_on",
        f"train plain --data shapes --out mine --init run --base-lr 1e-9 {TINY} --num-steps 2"
        " --log-every 1",
        (shapes,),
        by_network=True,
        needs_run=True,
    ),
    Call(
        "train_other_data",
        "train --out run --resume --data shapes",
        (shapes,),
        needs_run=True,
    ),
    Call("train_no_recipe", "train camvd"),
    Call("train_bad_option", f"train --data shapes --dropout 2 {TINY}", (shapes,)),
    Call(
        "export",
        "export run --data shapes --out mine.onnx",
        (shapes,),
        by_network=True,
        needs_run=True,
    ),
    Call(
        "export_int8",
        "export run --data shapes --int8 --budget 100 --out mine.onnx",
        (shapes,),
        by_network=True,
        needs_run=True,
    ),
    Call("export_no_run", "export data --out mine.onnx", (data,)),
    # bench
    Call(
        "bench",
        "bench paint.onnx --rounds 1 --threads 1",
        (bundle,),
        measured=True,
        without=("openvino",),
    ),
    Call(
        "bench_json",
        "bench paint.onnx --photo photo.png --size 40 50 --runtime onnxruntime --rounds 1 --json",
        (bundle, photos),
        measured=True,
    ),
    Call("bench_no_runtime", "bench paint.onnx --runtime onnxruntim", (bundle,)),
)
