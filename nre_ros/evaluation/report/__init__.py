"""The report of one run, or of two laid over each other: one HTML file without external requests."""
