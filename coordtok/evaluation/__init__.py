"""How good a model's videos are, and videos for people to look at.

Scoring a dataset (scripts/evaluate.py):
    tokenizer, generated     the two protocols from request to report, over all ranks
    clips, clip_reader       which clips, and their batches; over_ranks shares them out
    scoring, metrics         what is measured of each clip: PSNR, SSIM, motion
    features, transnetv2     networks for Frechet distances
    clip_features, frechet   their features of many clips, and the distance of two sets
    report, results          the figures as JSON and table, and the folder that holds them
    contact_sheet, scatter   its pictures

Any video through a tokenizer (scripts/reconstruct.py):
    side_by_side             the files and the report
    reconstruction           window by window: windows, tiling, frame_range
"""
