"""`atrous data pack`: a data set into shards."""

from pathlib import Path

from atrous.errors import InputError
from atrous.text import amount


def pack(
    data: str,
    /,
    *,
    out: Path,
    split: list[str] | None = None,
    root: Path | None = None,
    shard_size_mb: int = 128,
) -> None:
    """Pack a data set into shards: tar files that are read fast from any disk.

    Images go in as they are, masks as train ids; every sample is checked on the way. The folder
    is trained on like any other: atrous train --data OUT. webdataset and tar read it, too.

    Args:
        data: A built-in set, a folder with a dataset.toml, or such a file.
        out: The new folder.
        split: Splits to pack; all if left out.
        root: The folder of a built-in set.
        shard_size_mb: Size of a shard, in millions of bytes.
    """
    from atrous.cli.progress import watched
    from atrous.data.dataset import Dataset
    from atrous.data.shards.pack import pack as write

    if shard_size_mb < 1:
        raise InputError(f"--shard-size-mb is {shard_size_mb}; give 1 or more")
    dataset = Dataset.open(data, root)
    names = list(dict.fromkeys(split or dataset.splits))
    with watched("samples") as progress:
        packed = write(dataset, names, out, shard_size_mb * 10**6, progress)
    for part in packed:
        left_out = f", {part.missing} of its list are not here" if part.missing else ""
        samples, shards = amount(part.samples, "sample"), amount(part.shards, "shard")
        print(f"  {part.split:<10} {samples} in {shards}{left_out}")
    print(f"wrote {out}")
    print(f"next: atrous train --data {out}")
