"""Dense probes: per-pixel predictions from frozen patch features."""
