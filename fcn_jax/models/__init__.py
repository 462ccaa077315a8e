"""The network: VGG encoder, FCN decoder and upsampling, free of data and config."""
