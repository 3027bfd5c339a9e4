"""Recipe sections and their keys, torch-free; a method's own keys are in its file."""
