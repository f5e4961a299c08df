"""What is wrong with a folder of labelled images, before it costs a night of training.

    files  --layout-->  pairs and splits  --scan-->  statistics of every pair
           --labels-->  what the values of the masks mean
           --checks-->  findings  --proposal-->  dataset.toml and lists

diagnosis      the story, from top to bottom: `examine`
layout/        which mask belongs to which image, and in which split
  files        `Pair`, `Files` of a split, `Layout`
  pairing      names of files -> pairs (suffixes: several in one pattern; words.toml: telling words)
  mask_sets    the masks of every split; mask_choice: which of several that fit, or one per class
  lists        list files that divide the pairs
  coco         the same for COCO JSONs
  foreign      formats that are not read, named (foreign.toml)
bands          which bands and values of the images count
scan/          every file decoded once
  pairs        images and masks, and whether edges are blurred (mask_stats: values of one mask)
  value_stats  values of all masks together (levels, far_colors: classes in blurred masks)
  scan         `Scan`, all that is known of a folder
labels/        how masks are stored, and what their values mean
  readers      reads the masks (drawn: shapes and .mat; binary: a mask of each class)
  class_names  files that name classes (class_names.toml)
  known        published sets, whose classes are known (known.toml)
  values       ids or colours, and names -> `Meaning`: the [labels] of a dataset.toml
checks/        a scan -> findings; `CHECKS` is the table of all
findings       `Finding`; findings.toml holds the words
proposal       dataset.toml and lists
"""

from atrous.doctor.diagnosis import Diagnosis, examine
from atrous.doctor.findings import Finding

__all__ = ["Diagnosis", "Finding", "examine"]
