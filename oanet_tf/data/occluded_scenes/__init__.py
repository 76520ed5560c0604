"""OccludedScenes, a small panoptic dataset of random scenes in which things hide each other."""
