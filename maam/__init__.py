"""Attention modules for image classification, written once, native in PyTorch and MindSpore."""
