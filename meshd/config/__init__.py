"""The mesh's configuration: read, validated, stored, and turned into a snapshot."""
