"""Messages that ``xds-protos`` lacks, each with the package, name and numbers of its source.

``make protos`` writes the Python modules from the ``.proto`` files beside them. On the wire and in
type URLs a message is known by its own names alone; the path of its file counts for nothing.
"""
