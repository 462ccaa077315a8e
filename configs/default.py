"""Every setting there is. Other configs override a few; so does the command line.

For example: python run_train.py --config=configs/fcn8s.py --config.batch_size=8
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """A modern recipe for PASCAL VOC2012, as far as the variants share it."""
    config = ml_collections.ConfigDict()

    config.task = "semantic"  # One class a pixel; or multilabel: any number of them.
    config.thresholds = (0.5,)  # multilabel: probability from which a class is
    #                  present; one number, or one a class; hundredths.
    config.seed = 0  # Of the initial weights, the order of the images, and dropout.
    config.batch_size = 16  # Images a step, all devices together; a multiple of
    #                         mesh.data x mesh.fsdp.
    config.accumulation_steps = 1  # Parts that a batch is worked through in.
    config.num_steps = 30_000  # Optimization steps of the whole run.
    config.trainable = ".*"  # Parameters that train: a pattern, e.g. "decoder/".

    config.init_from = "vgg16-caffe"  # Weights to start from: a known name, a weight
    #                  file, a workdir, or WORKDIR/checkpoints/N; "": random ones.
    config.init_params = ".*"  # Parameters to take of those: a pattern.
    config.init_preprocessing = ""  # Of a file with torchvision's names: torchvision
    #                  (RGB, ImageNet's mean and std), caffe (BGR), "" (recognised).
    config.weights_cache = "~/.cache/fcn_jax/weights"  # Folder of downloaded weights.

    config.log_every = 50  # Steps between lines of the log.
    config.eval_every = 2_000  # Steps between scorings of the whole validation split.
    config.eval_batch_size = 16  # Images at a time, all devices together.
    config.checkpoint_every = 1_000  # Steps; also saved at every scoring.
    config.num_overlays = 8  # Validation images drawn at every scoring.
    config.compilation_cache = "~/.cache/fcn_jax/xla"  # Folder, or "" for none.

    config.mesh = mesh = ml_collections.ConfigDict()
    mesh.data = -1  # Devices that batches are split over; -1: all that remain.
    mesh.fsdp = 1  # The same, and parameters and optimizer state are split, too.
    mesh.spatial = 1  # Devices that the rows of each image are split over.

    config.data = data = ml_collections.ConfigDict()
    data.name = "voc"  # voc, folder or shapes.
    data.source = ""  # Folder or archive to build from; "": download (voc).
    data.sbd_source = ""  # voc: that of SBD, for the splits sbd_train and trainaug.
    data.dir = "data"  # Folder in which prepared data live.
    data.image_dir = "images"  # folder: that of the images, where there are no lists.
    data.mask_dir = "masks"  # folder: that of the masks, where there are no lists.
    data.val_fraction = 0.2  # folder: share of validation images, for two folders.
    data.split_seed = 0  # folder: of the random choice of those.
    data.label_map = ""  # folder: what the values of masks mean, such as
    #                      "0:0,255:1", "#ff0000:1,#000000:void", "0:void,1-150:0", or a
    #                      file of such lines; "": they are class ids, 255 void.
    data.intensity_range = ()  # folder: values that become 0 and 255, such as
    #                      (0, 4095); (): all that the file's type can hold.
    data.missing_masks = ""  # multilabel: what an image is where a class has no mask
    #                      file: absent, void, or "" (refused).
    data.train_split = "train"  # Split that is trained on; voc has also trainval,
    #                             trainaug (10582 images, with SBD's) and sbd_train.
    data.val_split = "val"  # Split scored during training; voc: also seg11valid.
    data.with_replacement = False  # Draw images at random, not each once an epoch.
    data.image_scale = 1.0  # Images are worked on at this scale, scored at their own.
    data.num_workers = 0  # Reading processes; 0: threads of the main process only.
    data.num_threads = 4  # Reading threads in each process that reads.

    config.augment = augment = ml_collections.ConfigDict()
    augment.crop = (512, 512)  # Height and width of training images; (): whole ones.
    augment.scale = (0.5, 2.0)  # Range of the random scale, on top of image_scale.
    augment.flip = True  # Left-right, for half the images.
    augment.photometric = True  # Random brightness, contrast, saturation and hue.

    config.model = model = ml_collections.ConfigDict()
    model.stride = 8  # 32, 16 or 8: FCN-32s, FCN-16s, FCN-8s.
    model.depth = 16  # VGG-11, 13, 16 or 19.
    model.width = 1.0  # Factor on all channel counts.
    model.batch_norm = False  # After every convolution up to conv5.
    model.dropout = 0.5  # Rate after fc6 and fc7.
    model.upsampling = "bilinear"  # Transposed convolution: bilinear (frozen) or
    #                                learned; or resize (bilinear, edges replicated).
    model.score_init = "zeros"  # Score layers: zeros (the paper's) or lecun_normal.
    model.geometry = "same"  # Or caffe: the reference's paddings and crops.
    model.skip_scales = (1.0, 1.0)  # Factors on pool4 and pool3 before the scores.
    model.mean = ()  # RGB, subtracted from 0-255; (): that of init_from, with random
    #                  weights that of the training images.
    model.std = ()  # RGB, divided by; (): likewise.
    model.remat = False  # Recompute activations: less memory, more time.
    model.dtype = "auto"  # Activations: float32, bfloat16, auto (by the device).

    config.loss = loss = ml_collections.ConfigDict()
    loss.cross_entropy = 1.0  # Weight of cross-entropy among the terms added up.
    loss.focal = 0.0  # Weight of the focal loss, which counts easy pixels less.
    loss.dice = 0.0  # Weight of 1 - soft Dice of each class of each image.
    loss.ohem = 0.0  # Weight of the cross-entropy of each image's hardest pixels.
    loss.focal_gamma = 2.0  # Power of focal; 0: cross-entropy.
    loss.ohem_fraction = 0.25  # Share of the labelled pixels that ohem keeps.
    loss.class_weights = ""  # "", "median_frequency", "root_median_frequency" (its
    #                  square roots: milder), or "1,0.5,..." for each class.
    loss.reduction = "mean"  # Of labelled pixels; or sum, over an image's pixels.
    loss.label_smoothing = 0.0  # Share of the target spread over all classes.

    config.optimizer = optimizer = ml_collections.ConfigDict()
    optimizer.name = "adam"  # sgd, adam or adamw.
    optimizer.learning_rate = 1e-5  # Peak. Low: pretrained weights are soon destroyed.
    optimizer.momentum = 0.9  # Of sgd: what remains of the step before.
    optimizer.weight_decay = 1e-6  # L2 for sgd and adam, decoupled for adamw.
    optimizer.multipliers = (  # Pattern, factor on learning rate, factor on decay; the
        (".*/kernel", 1.0, 1.0),  # first that matches a parameter counts.
        (".*", 1.0, 0.0),  # No decay of biases and normalisation.
    )
    optimizer.clip_norm = 0.0  # Highest norm of the gradient; 0: no limit.
    optimizer.schedule = "poly"  # poly, cosine or constant.
    optimizer.power = 0.9  # Of poly: that of the share of steps that remain.
    optimizer.warmup_steps = 500  # Linear, from 0.

    return config
