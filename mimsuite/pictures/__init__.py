"""Drawing: clouds, features, volumes. Nothing here knows a method or a run."""
