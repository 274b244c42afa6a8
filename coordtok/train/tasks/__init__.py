"""What is trained: all that is particular to a kind of model.

task         what the loop asks of either kind
tokenizer    patches at random coordinates; augment varies clips, clips_to_fit its linear path to
generator    the velocity from noise to latents
kinds        both, by `model.name`
sending      clips and drawn numbers from the host to a GPU
"""
