"""Latents of a tokenizer and of a generator; folders of them and of videos, over all ranks, each
command killed and run again as it likes.

encode      video shards to latent shards: windows chooses what, clips reads it, shard writes it and
            moments sums it up
decode      latent shards to mp4 files
generation  latents of a generator, each a function of the seed and its number; training shows some
sample      mp4 files of them
"""
