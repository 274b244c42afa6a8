"""Exports: a folder of config.json and model.safetensors that `from_pretrained` loads.

card           what an export is, and what its config.json says
read, write    from a folder to a model and back, checked and whole
hub            exports on the Hugging Face Hub
fingerprint    which model it is: latents carry it
official/      the authors' released weights as exports
"""
