"""What is wrong with a folder of labelled images, before it costs a night of training.

From the top to the bottom; `diagnosis` tells the story:

layout         names of files -> pairs and splits (suffixes: several in one pattern)
choices        whose masks are they? rivals: of several folders that fit, or one of each class
list_files     which lists divide the pairs
coco_folder    the same for a COCO JSON; foreign names formats that are not read
survey         pairs -> readings: every file decoded once, every mask tallied
reading        picks what reads the masks, and returns what was `seen`: annotations (shapes, .mat),
               binary (a mask of each class); described does so for a folder with a dataset.toml
class_names    files that name classes
census         the tallies of all masks together (levels, far_colors: classes in blurred masks)
scheme         census, class_names -> what the values mean
known          published sets, whose classes are known
bands          which bands and values of the images count
*_faults, places   all of this -> findings
proposal       -> dataset.toml and lists
"""

from atrous.doctor.diagnosis import Diagnosis, examine

__all__ = ["Diagnosis", "examine"]
