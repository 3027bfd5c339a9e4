"""Point clouds and meshes: files, published sets, views, corruptions."""
