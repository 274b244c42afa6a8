"""Stored planes to RGB, in integers: what `video.stored_planes` computes on a host and
`geometry.pixels` on any device, bit for bit the same.

The planes are BT.709 in limited range (ITU-R BT.709, item 3, of 8 bits): Y' from 16 to 235, Cb and
Cr around 128. With y = Y' - 16, u = Cb - 128, v = Cr - 128, all shifts rounding down,

    R = (298 y + 459 v + 136) >> 8
    G = (596 y - 109 u - 273 v + 272) >> 9
    B = (298 y + 541 u + 136) >> 8

clipped to 0..255. That is the nearest level to the exact value for 98.4, 97.2 and 97.4 % of all
colours and the next one for the others (at most 0.65 of a level from it, 0.003 on average); greys
have three equal values, and black and white are 0 and 255. Chroma of 4:2:0 planes is widened first,
each way by weights of 3/4 and 1/4 around samples that lie between the pixels: to 8 bits, rounded
once. No torch.
"""

LUMA_OFFSET, CHROMA_OFFSET = 16, 128
LUMA = 298
RED_V, BLUE_U = 459, 541
GREEN_U, GREEN_V = 109, 273
"""Of 512, where the others are of 256."""
ROUND = 136
"""Half of 256, and 8 that centre the error of 298, which stands for 298.08."""
