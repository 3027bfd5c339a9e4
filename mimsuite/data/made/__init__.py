"""What :mod:`mimsuite.data.made.synth` draws: one module a modality."""
