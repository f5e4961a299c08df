"""What is wrong with a folder of labelled images, before it costs a night of training.

    files  --layout-->  pairs and splits  --scan-->  statistics of every pair
           --labels-->  what the values of the masks mean
           --checks-->  findings  --proposal-->  dataset.toml and lists

diagnosis      the story, from top to bottom: `examine`
layout/        which mask belongs to which image, and in which split
  files        `Pair`, `Files` of a split, `Layout`
  names        words (words.toml) and suffixes in the names of folders and files
  pairing      names of files -> pairs
  mask_sets    the masks of every split; mask_choice: which of several that fit, or one per class
  lists        list files that divide the pairs
  coco         images, splits and categories from COCO JSONs
  foreign      formats that are not read, named (foreign.toml)
bands          which bands and values of the images count
scan/          every file decoded once
  pairs        statistics of each image and mask, and whether the mask's edges are blurred
  values       statistics of all masks together, and the classes in blurred ones
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
