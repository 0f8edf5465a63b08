"""From a config to a trained model: assembly, the run around the loop, its log, and many runs compared."""
