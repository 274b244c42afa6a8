"""Latents and videos by the folder, over all ranks, each command killed and run again as it likes.

encode      video shards to latent shards: windows chooses what, clips reads it, shard writes it and
            moments sums it up
decode      latent shards to mp4 files
sample      mp4 files of a generator, from the latents of evaluation.generation
"""
