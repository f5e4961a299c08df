"""`atrous data`: look at data sets, fetch, check and pack them, and make one to learn with."""

import json
import textwrap
from pathlib import Path

from cyclopts import App

from atrous.cli.options import Json

data = App(name="data", help="Look at data sets, fetch, check or pack them, or make one.")

for _name, _line in (
    ("doctor", "Say what is wrong with a folder of labelled images, and describe it."),
    ("fetch", "Download a published data set, or the parts of it that are asked for."),
    ("pack", "Pack a data set into shards: tar files, for training at scale."),
):
    # Imported when called; until then, the line is all that is known of it.
    data.command(f"atrous.cli.{_name}:{_name}", name=_name, help=_line)


@data.command(name="list")
def list_(*, json_output: Json = False) -> None:
    """List the data sets that atrous reads as they were published.

    Args:
        json_output: Print one JSON document instead of the table.
    """
    from atrous.data.dataset import Dataset, builtin_names

    datasets = [Dataset.open(name, Path()) for name in builtin_names()]
    if json_output:
        document = [
            {
                "name": dataset.name,
                "classes": list(dataset.taxonomy.classes),
                "splits": list(dataset.splits),
                "licence": dataset.licence,
                "source": dataset.source,
            }
            for dataset in datasets
        ]
        print(json.dumps(document, indent=2))
        return
    for dataset in datasets:
        splits = ", ".join(dataset.splits)
        print(f"{dataset.name:21} {dataset.taxonomy.num_classes:3} classes  {splits}")
        print(textwrap.fill(dataset.licence, 80, initial_indent="  ", subsequent_indent="  "))
    print("next: atrous data fetch NAME --root FOLDER; docs/sets.md tells what each holds")
    print("Your own folder: atrous data doctor FOLDER")


@data.command
def shapes(folder: Path, /, *, train: int = 200, val: int = 40, seed: int = 0) -> None:
    """Write a small generated data set: coloured shapes on a noisy ground.

    Args:
        folder: Where; made if it is not there.
        train: Images to train on.
        val: Images to validate on.
        seed: Another seed, other images.
    """
    from atrous.data.shapes import write_shapes

    write_shapes(folder, train, val, seed=seed)
    print(f"wrote {folder}/dataset.toml with {train} and {val} images of 4 classes")
    print(f"next: atrous train --data {folder} --backbone resnet18 --no-pretrained --num-steps 200")
