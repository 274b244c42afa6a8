"""Stored planes to RGB, in integers: what swscale computes on a host (`video.stored_planes`) and
`geometry.pixels` on any device, bit for bit the same.

The planes are BT.709 in limited range (ITU-R BT.709, item 3, of 8 bits): Y' from 16 to 235, Cb and
Cr from 16 to 240 around 128. With y = 16 (Y' - 16), u = 16 (Cb - 128), v = 16 (Cr - 128) and shifts
that round down,

    R = (9539 y + 14686 v + 65536) >> 17
    G = (9539 y - 1747 u - 4366 v + 65536) >> 17
    B = (9539 y + 17305 u + 65536) >> 17

clipped to 0..255. Sixteenths are what chroma of 4:2:0 planes has when it is widened, each way by
weights of 3/4 and 1/4 around samples that lie between the pixels. Levels above 252 and 240 count as
these: blue would pass 2^31 in swscale. No torch.
"""

LUMA_OFFSET, CHROMA_OFFSET = 16, 128
MOST_LUMA, MOST_CHROMA = 252, 240
LUMA = 9539
RED_V, BLUE_U = 14686, 17305
GREEN_U, GREEN_V = 1747, 4366
SHIFT = 17
"""Factors are of 2^13, levels of 2^4."""
ROUND = 1 << SHIFT - 1
