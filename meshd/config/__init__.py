"""The mesh's configuration: files and what was applied, kept on disk and given as objects."""
