"""The authors' released weights as exports (docs/official_weights.md).

convert                                 from one of their files to an export
release_file                            a file of theirs, read without trusting it
layout                                  how their tensors become ours
tokenizer_weights, generator_weights    sizes and names of each model
statistics_log                          a generator's latent statistics, from its log
"""
