"""Weights from other projects: their checkpoint files become run folders of atrous.

`layout` says what a project's layout is, each project has its own module beside it, `checkpoint`
reads the files, and `convert` puts them together. Nothing is unpickled, and nothing is ignored: a
tensor that finds no place is an error, but for those that a layout drops by name.
"""
