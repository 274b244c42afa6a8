"""The models: they return predictions, and know nothing of losses, shards and ranks.

tokenizer       CoordTok: encode, decode, decode_at; made of encoder and decoder
encoder         from a video to its planes
decoder         from planes and patch coordinates to pixels
linear_path     a linear codec beside encoder and decoder
linear_fit      what it is before the first step, by training clips
dit             TriplaneDiT, the generator
conditioning    what it is conditioned on, time and label, and its table of positions
known_times     the generator at times that are known before they come
layers          attention, MLP and the blocks of both models
checks          what a caller may hand to a model
legacy          short clips as the authors' release encodes them
build           the model that a config describes
"""
