"""Settings that tests of several verbs share."""

# A network of a few thousand weights and batches of four: a step takes milliseconds.
TINY_NETWORK = (
    "method.encoder.dim=16",
    "method.encoder.depth=1",
    "method.encoder.heads=2",
    "method.predictor.width=16",
    "method.predictor.depth=1",
    "method.predictor.heads=2",
    "data.batch_size=4",
    "data.workers=0",
    "log.tensorboard=false",
)

# Of every pretraining run: batches of four in this process, no event files, few views to watch.
TINY_RUN = ("data.batch_size=4", "data.workers=0", "log.tensorboard=false", "log.monitor_images=4", "device=cpu")
