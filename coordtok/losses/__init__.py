"""What training minimises; the models know nothing of it.

reconstruction    squared error of pixels
perceptual        distances of VGG features: LPIPS, and VGG(HED)
vgg               the convolutions whose features they compare
vgg_files, hed    where their weights lie, and how they are read
"""
