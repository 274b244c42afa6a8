"""Stored planes to RGB: what swscale computes on a host (`video.stored_planes`) and
`geometry.pixels` on any device, bit for bit the same.

The planes are BT.709 in limited range (ITU-R BT.709, item 3, of 8 bits): Y' from 16 to 235, Cb and
Cr from 16 to 240 around 128. In float32, every product and every sum rounded, from left to right,

    R =  -247.601   + 1.1643835 Y' + 1.7927411 Cr
    G =   77.37808  + 1.1643835 Y' - 0.21324863 Cb - 0.53290933 Cr
    B = -288.51758  + 1.1643835 Y' + 2.1124017 Cb

clipped to 0..255 and rounded down. There is half a level in each, so that this is the nearest one:
of all 2^24 colours but for some dozens of greens that lie between two. Chroma of 4:2:0 planes is
widened first, each way by weights of 3/4 and 1/4 around samples that lie between the pixels: to 8
bits, rounded once. No torch.
"""

BLACK = 16, 128
"""Y', and Cb and Cr."""
LUMA = 1.1643835
RED, RED_V = -247.601, 1.7927411
GREEN, GREEN_U, GREEN_V = 77.37808, -0.21324863, -0.53290933
BLUE, BLUE_U = -288.51758, 2.1124017
