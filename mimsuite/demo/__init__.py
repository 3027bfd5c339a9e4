"""The demo: pretrain a small masked autoencoder on real images and measure what it has learnt."""
