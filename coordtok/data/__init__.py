"""From tar shards to batches, in the order in which a sample passes through the modules.

What there is. A dataset is a folder or URL with tar files and an `index.json` (`index`): names and
places of all samples, their frames, the number of lanes, and a fingerprint of all of it. `tars` is
how samples lie in a tar: written, read by the headers, indexed. `partition` is how videos are cut
into samples, and these dealt to lanes.

Which sample is next. `order` is the global sequence as pure functions: position k of a run is the
next sample of lane k mod L, whatever the ranks, workers and restarts. `sequence` reads it from
opened datasets, past samples that cannot be read; its `LoaderState` is where a run stands, which
every checkpoint keeps.

Its bytes. `shards` opens a dataset and gives the files of any sample (`member`): at their offset
where the store can be read anywhere, else from a stream that each lane reads forwards (`streams`).
A damaged tar header costs the sample, and so do bytes that differ from their sums in the index
(`sums`; raw frames are compared once in a process while their file stays as it is); the header of
another file means a wrong index and ends the run, and so does input that keeps failing: neither may
change the order. A folder of videos is read without shards: `video_folder` gives the samples of the
raw shards that would be made of it, and `video_index` keeps what it must know of each file.

Its arrays. A `SampleReader` makes them of a stored sample: `video_reader` decodes a window of
frames to uint8, `latents` gives the planes that a tokenizer made of a clip. `sample` is what they
share: what names a sample, what its KEY.json says, what came of reading it. What lies in
`reused_memory` makes room for the next clips once nobody looks at it any more.

Ahead of their use. `workers` has forked processes read any series of items in advance, through
memory that is shared once, and hands them over in order.

For training, `loader` cuts this rank's endless positions into micro-batches, each with the state
that follows it.

For whatever reads each clip once (validation, evaluation, encoding, benchmarks), `clips` says which
clips, as pure functions of the index, and `clip_reader` reads such a list in batches that are the
same on any number of ranks.

For pipelines of others, `webdataset_stage` decodes what webdataset itself reads from shards.
"""
