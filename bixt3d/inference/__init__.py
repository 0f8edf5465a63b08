"""From a checkpoint and a file to labels, pictures' content and exported models."""
