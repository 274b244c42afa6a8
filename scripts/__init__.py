"""Command lines. `python scripts/NAME.py` is `coordtok-NAME` of an installed package, where this
folder is `coordtok.commands`.

train, export              a run, and what it learned as an export
convert_checkpoint         checkpoints of the former format as those of this one
reconstruct, evaluate      a tokenizer on a video, and on a dataset
encode, decode, sample     latents of a dataset, videos of latents, generated videos
fit_linear_codec           what tokenizers are compared with
import_official            the authors' released weights as exports
scaling, benchmark         studies under equal compute, and speed
"""
