"""Every image and mask, decoded once and measured."""
