"""The keys of recipes: sections of what any method may have, torch-free."""
