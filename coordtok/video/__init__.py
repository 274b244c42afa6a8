"""Pixels and files of video.

codec          how frames are stored in a shard
decoding       a window of them, read back
sample_table   where its frames lie, where they lie as the builder puts them
stored_planes  stored planes as they are, or as RGB
folder         which files of a folder are videos, their names and classes
source         any video file from elsewhere, as upright RGB frames
container      what its file states, and its frames as ffmpeg decodes them
frame_times    when they are shown, and frames at a steady rate
threads        several frames at a time, in their order
pixel_formats  RGB to planes and back, by swscale: what codec, source and mp4 share
mp4, pictures  mp4 and PNG files for people to look at
"""
