"""Where things are: in a clip, in its latent, in a batch of queries.

grid       the patches that a video is cut into, and their coordinates
patches    pixels of patches, read and written by index
draw       which patches a training step decodes
groups     which patches share a pass of the decoder
pixels     uint8 outside the model, [-1, 1] inside it; what stands in padded frames; RGB of planes
bt709      the numbers by which stored planes become RGB; no torch
latent     what a latent is: named planes, their axes, sizes and token patches; no torch
planes     a latent's tensors: packed, cut into tokens, read at coordinates
"""
