"""Video: encoded files and their readers, clips, augmentation, corruptions."""
