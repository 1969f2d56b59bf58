"""Models that were trained elsewhere: their folders and files read, and ours written for others.

checkpoint.py says what a folder or file describes, weights.py reads weights that run no code, configuration.py reads
foreign JSON; diffusers_folder.py, diffusers_scheduler.py and diffusers_network.py are the format of diffusers.
k_diffusion_folder.py is that of k-diffusion;
described_folder.py reads model.yaml, with module_network.py and dit.py for its networks. diffusers_export.py says
which of its schedulers samples as a run did. denoising_network.py makes a backbone of a foreign network, with levels/
for how it is told the noise and targets.py for what it predicts; process.py has their nodes in a config; imported.py
stands in the place of an objective and copies weights into a fit; betas.py has chains that conf/ has not.
"""
