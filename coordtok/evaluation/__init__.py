"""How good a model's videos are: the two protocols of scripts/evaluate.py, from request to report.

reconstructed, generated   clips through a tokenizer; a generator's videos against real ones
over_ranks                 clips shared out to all ranks, and what they found merged
scoring, metrics           what is measured of each clip: PSNR, SSIM, motion
linear_codec               the yardstick: principal components of tubelets
features, transnetv2       networks for Frechet distances
clip_features, frechet     which network, its features of many clips, the distance of two sets
report, results            the figures as JSON and table, and the folder that holds them
contact_sheet, plots       its pictures
side_by_side               any one video and its reconstruction (scripts/reconstruct.py)
"""
