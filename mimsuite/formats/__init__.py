"""How stored files of each modality are read, checked, converted and drawn.

Every module here has the same three functions, and imports its libraries inside them. They run in
a process of their own (:mod:`mimsuite.data.packing.isolated`), since files may be damaged or hostile.

- ``facts(data)``: decode all of it; figures by name.
- ``store(data, **options)``: (extension, bytes) as shards hold it.
- ``picture(data)``: an (H, W, 3) uint8 array for a contact sheet.
"""
