"""A trained model at work, over all ranks, each command killed and run again as it likes.

reconstruct      any video through a tokenizer, window by window: windows, tiling, frame_range
encode_shards    video shards to latent shards: latent_shard, channel_sums
decode_shards    latent shards to mp4 files
generation       latents of a generator, each a function of the seed and its number
video_files      a video file as a tensor and back, by hand
sample_videos    mp4 files of them
"""
