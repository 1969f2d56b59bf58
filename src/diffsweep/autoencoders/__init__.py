"""Autoencoders: networks that turn images into latents and back, and the space of latents that a diffusion works in.

autoencoder.py is what all of them can do, kl.py, vq.py and pretrained.py are the options of the group `autoencoder`,
levels.py is what their networks have in common; vae_folder.py reads the folder of one that is there already,
latent_shape.py is the arithmetic of sizes. losses.py says what they are trained for, with discriminator.py and
perceptual.py. latent_space.py scales latents to unit variance and back, latent_shards.py keeps those of a dataset on
the disk, latent_dataset.py shows a dataset in its latents.
"""
