"""Images: decoding, augmentation, normalisation, corruptions."""
