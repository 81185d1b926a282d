"""What every process of meshd needs: errors, the journal, files that survive a crash."""
