"""Weights from other projects: their checkpoint files become run folders of atrous.

`checkpoint` reads a file (`stand_ins` where it holds more than tensors), `layouts` finds the
network in it, and the module of its layout says where each tensor belongs (`places`). Nothing is
unpickled, and nothing is ignored: a tensor that finds no place is an error, but for those that a
layout drops by name.
"""
