"""meshctl: what people and scripts say to meshd. Decides nothing about the mesh itself."""
