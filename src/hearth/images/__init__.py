"""Images by content: one OCI image layout on disk, written by builds and clients, read by drivers."""
