"""One small file for each resource."""
