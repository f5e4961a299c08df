"""Networks: image batch to logits. Needs torch, timm."""
