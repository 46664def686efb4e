"""What a person looks at to believe a pose: a query, a sheet about it, and all poses in space."""
