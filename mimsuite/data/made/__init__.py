"""What :mod:`mimsuite.data.synth` draws: one module a modality."""
