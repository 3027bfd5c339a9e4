"""Models from checkpoints of any kind: our runs, published layouts, `--init-from`."""
