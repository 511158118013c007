"""`rein label serve`: the labeling server, and the pages that labelers and researchers work on."""
