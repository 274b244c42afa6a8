"""Flow matching on latents: pure functions, whose every draw is passed in.

flow          the path from noise to data, and what is learned of it
statistics    mean and standard deviation of latents, with which they are normalised
guidance      from a model to the velocity that a sampler integrates
samplers      from noise to data along a velocity
generate      all of it: normalised latents from noise
"""
