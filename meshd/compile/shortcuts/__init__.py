"""Goes on from the last compilation: each module after one sort of change."""
