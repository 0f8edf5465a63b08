"""Classification accuracy and part IoU, computed over whole splits."""
