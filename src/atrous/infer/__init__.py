"""Photos to labels, without torch: bundle -> runtime -> logits -> upsample -> Segmentation."""
