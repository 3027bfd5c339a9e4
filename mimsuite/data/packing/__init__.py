"""Writing shards, looking at sets and checking them.

Modules that a modality names as its ``formats`` have three functions and import their libraries
inside them; they run in a process of their own (:mod:`.isolated`), since files may be hostile:

- ``facts(data)``: decode all of it; figures by name.
- ``store(data, **options)``: (extension, bytes) as shards hold it.
- ``picture(data)``: an (H, W, 3) uint8 array for a contact sheet.
"""
