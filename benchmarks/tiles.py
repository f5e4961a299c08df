"""A raster in tiles, from disk to disk: megapixels a second beside the bare network; peak memory.

    python benchmarks/tiles.py                                   # the shipped model, 3072x4096
    python benchmarks/tiles.py --size 2000 20000 --rounds 0      # memory and time alone, once
    python benchmarks/tiles.py --size 20000 20000 --rounds 0 --stub 11

The bare network is given one tile, over and over, by as many threads at a time as the raster's
tiles are. The raster is a generated GeoTIFF of noise over gradients, tiled and compressed. Memory
is the peak of a process of its own that does nothing else. `--stub K` puts in place of the network
one that costs nothing, with K classes: what remains is everything but the network. The last line is
JSON. Leave the machine alone meanwhile.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window
from side_by_side import measure, print_environment

from atrous.infer.bundle import BundleMetadata
from atrous.infer.raster.segment import segment_raster
from atrous.infer.runtimes.base import Runtime
from atrous.infer.segmenter import Segmenter, load
from atrous.infer.tiling import TiledRuntime
from atrous.kernels import usable_cores
from atrous.taxonomy import Taxonomy, distinct_colors


def main():
    options = parse()
    height, width = options.size
    if options.child:
        child(options)
        return
    print_environment(usable_cores(), "numpy", "onnxruntime", "rasterio")
    with tempfile.TemporaryDirectory() as folder:
        path = write_raster(Path(folder) / "raster.tif", height, width)
        result = {"size": options.size, "megapixels": height * width / 1e6, "tile": options.tile}
        result |= alone(path, options)
        print(f"  {result['model']}, {width}x{height}, tiles of {options.tile}:")
        print(f"  {result['seconds']:.0f} s, peak {result['peak_megabytes']} MB")
        if options.rounds:
            result |= beside_the_network(path, options)
    print(json.dumps(result))


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, nargs=2, default=[3072, 4096], metavar=("H", "W"))
    parser.add_argument("--model", default="camvid")
    parser.add_argument("--tile", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--stub", type=int, default=0, metavar="K")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


class Stub(Runtime):
    """A network that costs nothing: K shades of one pixel in sixteen."""

    name, model_name, precision, threads = "stub", "stub", "fp32", usable_cores()

    def __init__(self, num_classes):
        taxonomy = Taxonomy(
            name="stub",
            classes=tuple(map(str, range(num_classes))),
            colors=distinct_colors(num_classes),
        )
        self.metadata = BundleMetadata(
            taxonomy=taxonomy, stride=4, precision="fp32", model="stub", licence="", version="0"
        )

    def __call__(self, images):
        cells = images[:, ::4, ::4, 0].astype(np.float32)
        shades = np.linspace(0, 255, self.metadata.taxonomy.num_classes, dtype=np.float32)
        return -np.abs(cells[:, None] - shades[:, None, None])


def open_segmenter(options):
    calls = usable_cores()
    if options.stub:
        return Segmenter(TiledRuntime(Stub(options.stub), options.tile), calls)
    return load(options.model, calls=calls, tile=options.tile)


def write_raster(path, height, width):
    """Write gradients under noise, a strip at a time."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 64, (3, 512, width), np.uint8)
    across = np.linspace(0, 191, width).astype(np.uint8)
    shape = {"height": height, "width": width, "count": 3, "dtype": "uint8"}
    blocks = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate"}
    place = {"crs": "EPSG:32632", "transform": from_origin(500_000, 5_400_000, 0.2, 0.2)}
    with (
        rasterio.Env(GDAL_CACHEMAX=128),
        rasterio.open(path, "w", driver="GTiff", **shape, **blocks, **place) as file,
    ):
        for top in range(0, height, 512):
            rows = min(512, height - top)
            file.write(noise[:, :rows] + across, window=Window(0, top, width, rows))
    return path


def alone(path, options):
    """Segment the raster in a process that does nothing else; its time and its peak memory."""
    arguments = [sys.executable, __file__, *sys.argv[1:], "--child", path]
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def child(options):
    segmenter = open_segmenter(options)
    start = time.perf_counter()
    segment_raster(segmenter, options.child, options.child.with_name("out"))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000  # KiB on Linux
    found = {"model": segmenter.description, "seconds": round(seconds, 1)}
    print(json.dumps(found | {"peak_megabytes": round(peak * 1.024)}))


def beside_the_network(path, options):
    """Time the raster and the bare network in turn."""
    segmenter = open_segmenter(options)
    runtime, calls, tile = segmenter.runtime.runtime, segmenter.calls, options.tile
    image = np.random.default_rng(0).integers(0, 256, (1, tile, tile, 3), np.uint8)
    with ThreadPoolExecutor(calls) as threads:
        seconds = measure(
            {
                "network": lambda: list(threads.map(runtime, [image] * 4 * calls)),
                "raster": lambda: segment_raster(segmenter, path, path.with_name("out")),
            },
            options.rounds,
            warm_up=1,
        )
    network = 4 * calls * tile**2 / seconds["network"] / 1e6
    raster = options.size[0] * options.size[1] / seconds["raster"] / 1e6
    print(f"  bare network  {network:6.2f} megapixels/s")
    print(f"  raster        {raster:6.2f} megapixels/s, {raster / network:.2f} of it")
    return {"network_mpx_s": round(network, 3), "raster_mpx_s": round(raster, 3)}


if __name__ == "__main__":
    main()
