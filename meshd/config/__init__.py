"""What people declare: read, validated, stored, and turned into a snapshot."""
