"""Drawing of clouds, features and volumes; independent of methods and runs."""
