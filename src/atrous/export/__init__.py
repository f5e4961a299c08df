"""A training run in, a bundle out: one self-describing .onnx file, in float or int8, with proof."""
