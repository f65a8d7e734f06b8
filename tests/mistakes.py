"""Lists mistakes in the arguments of train.py and, for each, a part of the line that it costs."""

MISTAKES = {
    # unknown keys and choices
    "model.lstm_unit=5": "model.lstm_unit: there is no such key; did you mean model.lstm_units?",
    "model.recurrent.units=0": "model.recurrent.units: 0 is not a whole number of at least 1 or null; choose another",
    "modle=cnn_lstm": "modle: there is no such key; did you mean model?",
    "lr=0.1": "lr: there is no such key; did you mean optimizer.lr?",
    "zzz=1": "zzz: there is no such key; known keys: data, ",
    "trainer.max_time=1": "Add any other argument of lightning.pytorch.Trainer with +trainer.max_time=VALUE.",
    "+trainer.max_epoch=5": "trainer.max_epoch: there is no such key; did you mean trainer.max_epochs?",
    "model=cnn": "model: there is no model=cnn; choose from cnn_lstm, deep, join, reshaped",
    "trainer/logger=wnadb": "trainer/logger: there is no trainer/logger=wnadb; choose from csv, mlflow, tensorboard,",
    "trainer/logger=null": "trainer/logger=null: is no choice of a group; write the name of one of its files",
    "-m model=deep,1": "model=deep,1: is no choice of a group; write the name of one of its files, or leave it out.",
    "model/encoder=padded": "model/encoder: this model has no such part; add model=join, or leave it out.",
    "model=reshaped experiment=clips": "this model has no such part; add model=join, or leave experiment=clips out.",
    # options, and overrides that Hydra cannot read
    "--epochs 5": "--epochs: there is no such option; write keys as KEY=VALUE, e.g. trainer.max_epochs=5.",
    "--experiment=fast": "--experiment=fast: there is no such option; write keys as KEY=VALUE, e.g. trainer.max_",
    "--run=latest": "argument --run/-r: ignored explicit argument 'latest'; python",
    "-m seed=1,2 --cfg job": "--cfg, --info: show the config of one run; leave out -m, sweep= and plan=.",
    "lstm_units": "lstm_units: cannot be parsed; write KEY=VALUE, or \"KEY='VALUE'\" for a text.",
    "init=a(1)": "init=a(1): cannot be parsed; write KEY=VALUE, or \"KEY='VALUE'\" for a text.",
    "seed=1,2": "seed: 1,2 are several values; add -m to run a sweep over them.",
    "experiment=units": "experiment: units is a sweep over model.lstm_units, seed; add -m.",
    # keys of this project's own
    "run=": "run: is empty; give a value, or leave it out.",
    "run=nowhere": "run: nowhere is not a run folder: it has no .hydra/config.yaml; give one like",
    "run=latest": "has a .hydra/config.yaml; start one with python train.py.",
    "+trust=my_module": "trust: is for the config of a run folder; add run=PATH, or leave it out.",
    "plan=maybe": "plan: 'maybe' is not true; write plan=true, or leave it out.",
    "sweep=nowhere": "sweep: nowhere has no multirun.yaml; give a folder like",
    "sweep=latest": "has no sweep; start one with python train.py -m KEY=A,B.",
    "init=": "init: is empty; give a value, or leave it out.",
    "init=nowhere": "init: nowhere does not exist; give a run folder, or a file that",
    "temperature=1e200": "temperature: 1e+200 is not a number from 0.01 to 100; choose another value.",
    "temperature=2": "temperature: 2, but there is no teacher; add teacher=FOLDER, or leave it out.",
    "model=join model.recurrent.units=8 model.lstm_units=5": "model.lstm_units: 5, but model.recurrent.units=8 sets "
    "the units; write that key, or leave it out.",
    "data.num_folds=10": "data.num_folds: 10, but there is no fold; add data.fold=N, or leave it out.",
    "data.fold=0 data.validation_images=9": "data.validation_images: 9, but data.fold=0 says which samples these are; "
    "write data.fold=null, or leave it out.",
    "+trainer.callbacks.swa._target_=lightning.pytorch.callbacks.StochasticWeightAveraging "
    "+trainer.callbacks.swa.swa_lrs=0.01": "trainer.callbacks.swa: StochasticWeightAveraging averages the weights "
    "after the last checkpoint is written; leave it out",
    "+trainer.callbacks.x._target_=lightning.pytorch.callbacks.BatchSizeFinder": "trainer.callbacks.x: BatchSizeFinder "
    "trains with another batch size than the config records; leave it out, and write data.batch_size.",
    "+trainer.profiler=simple": "trainer.profiler: simple is no group of keys; write trainer/profiler=simple or pyt",
    "hydra/launcher=submitit_slurm": "hydra/launcher=submitit_slurm: is for sweeps; add -m, or leave it out.",
    "hydra.sweep.dir=mine": "hydra.sweep.dir=mine: is for sweeps; add -m, or leave it out.",
    "-m seed=1,2 hydra.run.dir=mine": "hydra.run.dir=mine: is for a single run; write hydra.sweep.dir, or leave "
    "it out.",
    "experiment=distilled": "teacher: SWEEP does not exist; restore it, or give one that train.py made.",
    "teacher=.": "teacher: . is neither a run folder with a checkpoints/best.ckpt nor the folder of a sweep with a",
    "teacher=a ~temperature": "temperature: is missing; add temperature=VALUE, or leave out",
    # wrong types
    "init=123": "init: 123 is not text or null; write \"init='VALUE'\" for a text.",
    "model.lstm_units=many": "model.lstm_units: 'many' is not a whole number of at least 1; choose another value.",
    "model.filters=32": "model.filters: 32 is not a list of whole numbers of at least 1, such as [32,32]",
    "data.augmentation=gru": "data.augmentation: 'gru' is not a group of keys",
    "trainer.logger=true": "trainer.logger: true is not a group of keys or null or false",
    "+trainer.detect_anomaly=5": "trainer.detect_anomaly: 5 is not true or false; choose another value.",
    # out of range
    "model.dropout=1": "model.dropout: 1 is not a number in [0, 1); choose another value.",
    "schedule=cosine schedule.eta_min=-0.1": "schedule.eta_min: -0.1 is not a number of at least 0",
    "schedule=onecycle schedule.div_factor=0": "schedule.div_factor: 0 is not a number above 0",
    "optimizer.lr=nan": "optimizer.lr: nan is not a number above 0",
    "trainer.devices=0": "trainer.devices: 0 is not a whole number of at least 1 or one of auto, -1 or a list; choose",
    "trainer.accelerator=gpux": "trainer.accelerator: 'gpux' is not one of auto, cpu, gpu",
    "data.validation_images=60000": "data.validation_images: 60000 of 60000 leave none to train on",
    "data.validation_images=0 swept=[model.lstm_units,seed]": "data.validation_images: 0, but a sweep over "
    "model.lstm_units ranks its jobs by val/accuracy; hold some",
    "data.validation_images=0 trainer/callbacks=early_stopping": "data.validation_images: 0, but trainer.callbacks."
    "early_stopping.monitor=val/accuracy needs validation samples; hold some out, or monitor train/loss.",
    "data.fold=5": "data.fold: 5, but data.num_folds=5 makes folds 0 to 4; write one.",
    "trainer/callbacks=early_stopping trainer.callbacks.early_stopping.monitor=val/acc": "trainer.callbacks."
    "early_stopping.monitor: 'val/acc' is not one of val/accuracy, val/balanced_accuracy, val/macro_f1, "
    "val/top5_accuracy, val/loss, train/accuracy, train/loss; did you mean val/accuracy?",
    "class_weights=even": "class_weights: 'even' is not one of balanced or null; choose another value.",
    "data=clips data.root=here data.fps=0": "data.fps: 0 is not a number above 0, up to 1000 or null; choose",
    "monitor=accuracy": "val/top5_accuracy, val/loss; did you mean val/accuracy?",
    "data=moving_digits data.label=motion monitor=val/top5_accuracy": "monitor: val/top5_accuracy needs 10 classes or "
    "more, but there are 8; choose another metric, such as val/accuracy.",
    "trainer.callbacks.checkpoints.monitor=val/loss": "monitor: val/accuracy, but trainer.callbacks.checkpoints."
    "monitor is val/loss; write the same metric.",
    # what a run does not allow
    "+trainer.plugins=[]": "trainer.plugins: [] is not null, because a run needs its own plugin",
    "+trainer.default_root_dir=here": "trainer.default_root_dir: 'here' is not null; use hydra.run.dir instead",
    "trainer.strategy=ddp_spawn": "trainer.strategy: 'ddp_spawn' is not the name of a strategy that starts no pro",
    "+trainer.max_steps=1000": "trainer.max_steps: 1000 is not -1, because runs end after an epoch; use trainer.max_",
    "trainer.precision=bf16-mixed trainer.gradient_clip_val=1": "trainer.gradient_clip_val: 1 cannot be combined "
    "with a fused optimizer at trainer.precision=bf16-mixed; add optimizer.fused=false.",
    "trainer.precision=bf16-true trainer.callbacks.ema.decay=0.9": "trainer.callbacks.ema.decay: 0.9 needs finer steps",
    "trainer.num_nodes=2 trainer.accelerator=cpu": "trainer.num_nodes: 2 machines need a process on each; "
    "start torchrun on each of them, or on SLURM add -m hydra/launcher=submitit_slurm.",
    # missing keys
    "~model.dropout": "model.dropout: is missing; add model.dropout=VALUE, or leave out the ~ override",
    "~trainer.callbacks": "trainer.callbacks.checkpoints: is missing; add ",
    "~schedule.max_lr schedule=onecycle": "schedule.max_lr: is missing; add schedule.max_lr=VALUE",
    "~optimizer": "optimizer: is missing; choose a file of conf/optimizer/",
    # orderings and sizes that do not fit
    "data.orderings=[[1,2,3,3]]": "data.orderings: [1, 2, 3, 3] is not a permutation of 1234; write one, or rows",
    "data.orderings=[diagonal]": "data.orderings: diagonal is not the name of an ordering; write rows, columns, snake",
    "data.grid=[3,3] data.orderings=[rows]": "data.grid: [3, 3] does not split images of 28 x 28 into equal pieces; ",
    "data.train_orderings=[[1,2,3,4],[4,3,2,1]]": "data.train_orderings: 2 orderings cannot fill frames that stack",
    "model=deep data.orderings=[[1,2,3,4]] data.test_orderings=[[4,3,2,1]]": "data.test_orderings: this network reads "
    "frames of data.orderings only; leave it out, or let the network encode every frame: model=cnn_lstm",
    "model.kernel_size=9": "model.kernel_size: 9 does not fit stage conv2, whose input is 32 x 48 x 6",
    "model=deep model/recurrent=conv_lstm": "model.recurrent: ConvLSTM reads maps, but the encoder returns a vector; ",
    "model=join model/encoder=resnet18 model.encoder.frozen=0": "model.encoder.frozen: 0 is not true or false or a",
    "model=join model/encoder=timm model.encoder.name=resnet81": "model.encoder.name: timm has no resnet81; write e.g.",
    "model=join model/encoder=resnet18 model.encoder.weights=no.pth": "model.encoder.weights: no.pth cannot be used (",
    # data folders
    "data.dataset=QMNIST": "data.dataset: 'QMNIST' is not one of mnist, idx, MNIST, FashionMNIST, KMNIST",
    "data.root=nowhere": "data.root: nowhere is not read by data.dataset=mnist; add data=idx, or leave it out.",
    "data=idx data.root=.": "has no train-images-idx3-ubyte or train-images-idx3-ubyte.gz",
    "data=idx": "data.root: null, but data.dataset=idx is read from a folder; add data.root=FOLDER.",
    # interpolations
    "data.batch_size=${oc.env:NOWHERE}": "data.batch_size: ${oc.env:NOWHERE} cannot be resolved (KeyError ",
    "seed=${data.seed}": "data.seed: ${seed} cannot be resolved (Recursive interpolation detected); name another key",
    "model.dropout=${nothing}": "model.dropout: ${nothing} cannot be resolved (Interpolation key 'nothing' not found)",
    # classes and their arguments
    "model.recurrent=gru": "model.recurrent: gru is a choice of a group; write model/recurrent=gru.",
    "data._target_=os.system": "data._target_: os.system is not allowed; name a class of quadrant_lstm.data.*.",
    "model._target_=quadrant_lstm.model.Nothing": "there is no class quadrant_lstm.model.Nothing; correct the name.",
    "model._target_=os.system": "model._target_: there is no class os.system; correct the name.",
    "+optimizer.x=[{_target_:os.system}]": "optimizer.x: torch.optim.Adam does not take x; leave it out",
    "schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau": "schedule._target_: torch.optim.lr_scheduler."
    "ReduceLROnPlateau needs a metric, which no run gives it; name another class.",
    "optimizer._target_=torch.optim.RMSprop": "optimizer.betas: torch.optim.RMSprop does not take betas or fused; "
    "leave it out, or add ~optimizer.betas ~optimizer.fused.",
    "optimizer._target_=torch.optim.Adamm": "optimizer._target_: there is no class torch.optim.Adamm; did you "
    "mean torch.optim.Adam?",
}
