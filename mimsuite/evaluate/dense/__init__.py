"""Dense probes: what frozen patch features say of each pixel."""
