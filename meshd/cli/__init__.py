"""The command line, meshctl. It decides nothing about the mesh itself."""
