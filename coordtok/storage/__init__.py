"""Files: written whole or not at all, by one command at a time, and read from wherever they lie.

files                 files and folders written under another name, then renamed
locks, claims         one writer of a folder at a time; what the folder is being filled with
checksums, manifests  a file's SHA-256; the files of a folder with size and SHA-256
json_files            JSON that any code here can go through, or what is wrong with it
cache                 where files lie that can be had again
slice_files           slices of tensors, checked piece by piece as they are read
slice_layout          which of them lie in which file, and who reads what of it
names                 file names from untrusted keys
attempts              failing input, tried again with growing pauses
stores                which of the next four reads a location that the user typed
local                 a folder, at any offset
http, objects         URLs: http(s); s3, gs and hf through fsspec
commands              `pipe:` commands
forward               the streams that these three give

It knows nothing of shards or checkpoints, and loads webdataset and fsspec only where they are used.
"""
