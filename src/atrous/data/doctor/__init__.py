"""What is wrong with a folder of labelled images, before it costs a night of training.

layout       names of files -> pairs and splits
survey       pairs -> readings: every file decoded once, every mask tallied
reading      picks what reads the masks of a folder that nothing describes (annotations: those
that are no pictures); described does so for one with a dataset.toml
scheme       tallies, class_names -> what the values mean
*_faults     all of this -> findings
proposal     -> dataset.toml and lists
diagnosis    the story from the top to the bottom
"""

from atrous.data.doctor.diagnosis import Diagnosis, examine

__all__ = ["Diagnosis", "examine"]
