"""Accuracy of a classifier and part IoU, each over a whole split."""
