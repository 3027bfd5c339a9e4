"""Writing, inspecting and verifying shards.

A modality's ``formats`` module has three functions, which import their libraries when called. They
run in a separate process (:mod:`.isolated`), because files may be hostile:

- ``facts(data)``: decode everything; properties by name.
- ``store(data, **options)``: (extension, bytes) to store in a shard.
- ``picture(data)``: an (H, W, 3) uint8 array for a contact sheet.
"""
