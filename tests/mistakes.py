"""Lists commands with a mistake and, for each, a part of the line that it must print."""

ANSWERED_WITHOUT_TORCH = {
    # unknown keys, with the nearest known one
    "model.lstm_unit=5": "model.lstm_unit: there is no such key; did you mean model.lstm_units?",
    "modle=cnn_lstm": "modle: there is no such key; did you mean model?",
    "hydra.foo=1": "hydra.foo: there is no such key; python",
    "trainer.max_time=1": "Add any other argument of lightning.pytorch.Trainer with +trainer.max_time=VALUE.",
    "experiment=quick model.join_piece=true": "model.join_piece: there is no such key; did you mean model.join_pieces?",
    "model=deep model.shared_tiles=false": "model.shared_tiles: there is no such key; known keys: model.recurrent, ",
    "seed=1,2": "seed: 1,2 are several values; add -m to run a sweep over them.",
    "optimizer.lr=choice(0.1,0.2)": "optimizer.lr: choice(0.1,0.2) are several values; add -m",
    "-m seed=1,2 --cfg job": "--cfg: shows the config of one run; leave out -m, or list the jobs with plan=true.",
    "init=": "init: is empty; give a value, or leave it out.",
    "init=a(1)": "init: a value with such characters needs quotes: \"init='a(1)'\".",
    "init=nowhere": "init: nowhere does not exist; give a run folder, or a file that",
    "--epochs 5": "--epochs: there is no such option; write keys as KEY=VALUE, e.g. trainer.max_epochs=5.",
    "--run=latest": "argument --run/-r: ignored explicit argument 'latest'; python",
    "--cfg jobs": "argument --cfg/-c: invalid choice: 'jobs' (choose from ",
    "--resolve": "--resolve, --package: are for --cfg; add --cfg job, or leave them out.",
    "--experimental-rerun=x": "--experimental-rerun: is not supported; resume a run with run=FOLDER.",
    "run=latest plan=true": "plan: shows the jobs of a sweep, but run= resumes one run; leave one out.",
    # unknown choices
    "model=cnn": "model: there is no model=cnn; choose from cnn_lstm, deep, join, reshaped",
    "experiment=nope": "experiment: there is no experiment=nope; choose from ",
    "trainer/logger=wnadb": "trainer/logger: there is no trainer/logger=wnadb; choose from csv, mlflow, tensorboard,",
    "trainer/logger=[csv,wnadb]": "trainer/logger: there is no trainer/logger=wnadb; choose from csv, mlflow,",
    "+trainer/logger=csv": "trainer/logger: a plus adds a second choice to the one in conf/; leave the plus out.",
    "trainer/profiler=null": "trainer/profiler: there is no trainer/profiler=null; choose from pytorch, simple.",
    "model=null": "model: there is no model=null; choose from cnn_lstm, deep, join, reshaped",
    "experiment=null": "experiment: there is no experiment=null; choose from ",
    "-m model=cnn_lstm,1": "model: there is no model=1; choose from ",
    "data=mnist schedule=1": "schedule: there is no schedule=1; choose from constant, cosine, onecycle.",
    "lr=0.1": "lr: there is no such key; did you mean optimizer.lr?",
    "zzz=1": "zzz: there is no such key; known keys: data, ",
    # malformed overrides
    "lstm_units": "lstm_units: is not an override; write KEY=VALUE",
    "model.filters=[5": "model.filters=[5: is not an override",
}
OTHERS = {
    "+model.lstm_unitz=5": "model.lstm_unitz: there is no such key; did you mean model.lstm_units?",
    "+seeds=5": "seeds: there is no such key; did you mean seed?",
    "init=123": "init: 123 is not text or null",
    "experiment=units": "experiment: units is a sweep over model.lstm_units, seed; add -m.",
    # wrong types
    "model.lstm_units=many": "model.lstm_units: 'many' is not a whole number of at least 1; write e.g.",
    "model.lstm_units=2.5": "model.lstm_units: 2.5 is not a whole number",
    "model.lstm_units=true": "model.lstm_units: true is not a whole number",
    "model.lstm_units=null": "model.lstm_units: null is not a whole number",
    "+trainer.plugins=[]": "trainer.plugins: [] is not null, because a run needs its own plugin",
    "+trainer.default_root_dir=here": "trainer.default_root_dir: 'here' is not null; use hydra.run.dir instead",
    "model.filters=32": "model.filters: 32 is not a list of whole numbers of at least 1",
    "seed=one": "seed: 'one' is not a whole number from 0 to 4294967295; write e.g. seed=1.",
    "data.root=5": "data.root: 5 is not text or null",
    "data.augmentation=15": "data.augmentation: 15 is not a group of keys; write data.augmentation.KEY=VALUE.",
    "data.augmentation=null": "data.augmentation: null is not a group of keys",
    "trainer.callbacks=5": "trainer.callbacks: 5 is not a group of keys; write",
    "trainer.callbacks.progress=5": "trainer.callbacks.progress: 5 is not a group of keys; write trainer.",
    "trainer.logger=true": "trainer.logger: true is not a group of keys or null or false",
    # out of range
    "model.dropout=1": "model.dropout: 1 is not a number in [0, 1); write e.g. model.dropout=0.25.",
    "model.filters=[32,0]": "model.filters: [32, 0] is not a list of whole numbers of at least 1",
    "model.filters=[]": "model.filters: [] is not a list of whole numbers of at least 1; write e.g. "
    "model.filters=[32,32].",
    "data.batch_size=0": "data.batch_size: 0 is not a whole number of at least 1; write e.g. data.batch_size=64.",
    "schedule.factor=2": "schedule.factor: 2 is not a fraction above 0.0, up to 1.0",
    "optimizer.lr=-1": "optimizer.lr: -1 is not a number above 0; write e.g. optimizer.lr=0.001.",
    "optimizer.betas=[0.9]": "optimizer.betas: [0.9] is not a list of two numbers in [0, 1); write e.g. ",
    "run=": "run: is empty; give a value, or leave it out.",
    "optimizer.lr=nan": "optimizer.lr: nan is not a number above 0",
    "trainer.max_epochs=0": "trainer.max_epochs: 0 is not a whole number of at least 1",
    "trainer.accelerator=gpux": "trainer.accelerator: 'gpux' is not one of auto, cpu, gpu",
    "data.validation_images=60000": "data.validation_images: 60000 of 60000 training samples leave none",
    "data.fold=5": "data.fold: 5, but data.num_folds=5 makes folds 0 to 4; write one.",
    "data.fold=-1": "data.fold: -1 is not a whole number from 0 to 4294967295 or null",
    "data.num_folds=1": "data.num_folds: 1 is not a whole number of at least 2; write e.g. data.num_folds=5.",
    "trainer/callbacks=early_stopping trainer.callbacks.early_stopping.monitor=val/acc": "trainer.callbacks."
    "early_stopping.monitor: 'val/acc' is not one of val/accuracy, val/loss, train/accuracy, train/loss; write e.g.",
    "+trainer.check_val_every_n_epoch=2": "2 is not 1, for validation in every epoch; leave it out.",
    "+trainer.max_steps=1000": "trainer.max_steps: 1000 is not -1, because runs end after an epoch; use trainer.max_",
    "+trainer.val_check_interval=0.3": "trainer.val_check_interval: 0.3 is not 1, for validation at the end of every",
    "+trainer.fast_dev_run=true": "trainer.fast_dev_run: true is not false; use trainer=smoke instead.",
    "trainer.gradient_clip_val=-1": "trainer.gradient_clip_val: -1 is not a number of at least 0 or null",
    "trainer.precision=bf16-mixed trainer.gradient_clip_val=1": "trainer.gradient_clip_val: 1 cannot be combined "
    "with a fused optimizer at trainer.precision=bf16-mixed; add optimizer.fused=false.",
    # missing keys
    "~model.dropout": "model.dropout: is missing; add e.g. model.dropout=0.25.",
    "~trainer.max_epochs": "trainer.max_epochs: is missing; add e.g. trainer.max_epochs=5.",
    "~trainer.callbacks": "trainer.callbacks.checkpoints: is missing, but a run needs it; leave out the ~ ",
    "~optimizer": "optimizer: is missing; choose a file of conf/optimizer/",
    # orderings
    "data.orderings=[[1,2,3,3]]": "data.orderings: [1, 2, 3, 3] is not a permutation of 1234; write one, or rows",
    "data.orderings=[]": "data.orderings: [] is not a list of permutations or names of orderings",
    "data.orderings=[diagonal]": "data.orderings: diagonal is not the name of an ordering; write rows, columns, snake",
    "data.grid=[3,3] data.orderings=[rows]": "data.grid: [3, 3] does not split images of 28 x 28 into equal pieces; ",
    "data.grid=[2]": "data.grid: [2] is not a list of two whole numbers of at least 1: rows and columns; write",
    "data.train_orderings=[[1,2,3,4],[4,3,2,1]]": "data.train_orderings: 2 orderings cannot fill frames that stack",
    "data.orderings=[[1,2,3,4],[4,3,2,1]] data.test_orderings=[[1,2,3,4],[4,3,2,1]]": "data.test_orderings: this "
    "network reads frames of data.orderings only; leave it out, or choose a network that encodes every frame, e.g.",
    "trainer.precision=bf16-true trainer.callbacks.ema.decay=0.9": "trainer.callbacks.ema.decay: 0.9 needs finer steps",
    "model=deep data.orderings=[[1,2,3,4]] data.test_orderings=[[4,3,2,1]]": "data.test_orderings: this network reads "
    "frames of data.orderings only; leave it out, or choose a network that encodes every frame, e.g. model=cnn_lstm",
    # sizes that do not fit
    "model.kernel_size=9": "model.kernel_size: 9 does not fit stage conv2, whose input is 32 x 48 x 6",
    "model.pool_size=30": "model.pool_size: 30 does not fit stage pool, whose input is 32 x 52 x 10",
    # missing data folders and run folders
    "data.dataset=QMNIST": "data.dataset: 'QMNIST' is not one of mnist, idx, MNIST, FashionMNIST, KMNIST; write e.g.",
    "data.root=nowhere": "data.root: nowhere is not read by data.dataset=mnist; add data=idx, or leave it out.",
    "data=idx": "data.root: null, but data.dataset=idx is read from a folder; add data.root=FOLDER.",
    "data.dataset=idx data.root=nowhere": "data.root: nowhere is not a folder; give one that holds",
    "run=nowhere": "run: nowhere is not a run folder: it has no .hydra/config.yaml; give one like",
    "run=latest": "has a .hydra/config.yaml; start one with python train.py.",
    # interpolations
    "seed=${oc.env:NOWHERE,many}": "seed: 'many' is not a whole number from 0 to 4294967295; write e.g. seed=1.",
    "data.batch_size=${oc.env:NOWHERE}": "data.batch_size: ${oc.env:NOWHERE} cannot be resolved (KeyError ",
    "seed=${data.seed}": "data.seed: ${seed} cannot be resolved (Recursive interpolation detected); name another key",
    "model.dropout=${nothing}": "model.dropout: ${nothing} cannot be resolved (Interpolation key 'nothing' not found)",
    "model=deep model.lstm_units=${data.orderings}": "model.lstm_units: [[1, 2, 3, 4], [4, 3, 2, 1], [1, 3, 2, 4], ",
    # parts of a network
    "data.augmentation=gru": "data.augmentation: 'gru' is not a group of keys; write data.augmentation.KEY=VALUE.",
    "model.recurrent=gru": "model.recurrent: gru is a choice of a group; write model/recurrent=gru.",
    "model/recurrent=grus": "model/recurrent: there is no model/recurrent=grus; choose from bilstm, concat, ",
    "model/encoder=padded": "model/encoder: this model has no such part; add model=join, or leave it out.",
    "data=moving_digits model=deep": "model: deep joins the pieces of images, which clips do not have; choose another",
    "model=deep model/recurrent=conv_lstm": "model.recurrent: ConvLSTM reads maps, but the encoder returns a vector; ",
    "model=join model.encoder.kernel_size=40": "model.encoder.kernel_size: 40 does not fit stage conv1, whose input ",
    "~model.recurrent._partial_": "model.recurrent._partial_: is not true, but the network calls the class with sizes; "
    "add ++model.recurrent._partial_=true.",
    "model.recurrent.num_layer=2": "model.recurrent.num_layer: there is no such key; did you mean model.recurrent.num_",
    "data._target_=os.system": "data._target_: os.system is not allowed; name a class of quadrant_lstm.data.*.",
    # classes
    "model._target_=5": "model._target_: 5 is not text; write e.g. model._target_=quadrant_lstm.model.network.CNNLSTM.",
    "model._target_=quadrant_lstm.model.Nothing": "there is no class quadrant_lstm.model.Nothing; correct the name.",
    "model._target_=quadrant_lstm.model.describe.describe": "model.describe.describe is not a class; name one.",
    # arguments of classes of torch and Lightning
    "trainer.num_nodes=2 trainer.accelerator=cpu": "trainer.num_nodes: 2 machines need torchrun, whose command runs on "
    "each of them, or SLURM: add -m hydra/launcher=submitit_slurm.",
    "model._target_=os.system": "model._target_: os.system is not a class; name one.",
    "model._target_=builtins.int": "model._target_: builtins.int does not tell its arguments; name a class that is",
    "model._target_=nowhere.Network": "model._target_: nowhere.Network cannot be imported (No module named ",
    "optimizer._target_=torch.optim.swa_utils.torch.hub.load": "torch.optim.swa_utils.torch.hub.load cannot be ",
    "+optimizer.x=[{_target_:os.system}]": "optimizer.x: there is no such key; ",
    "schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau": "schedule._target_: torch.optim.lr_scheduler."
    "ReduceLROnPlateau needs a metric, which no run gives it; name another class.",
    "optimizer._target_=torch.optim.NAdam": "NAdam does not take fused; remove it with ~optimizer.fused.",
    "model=join model/encoder=resnet18 model.encoder._target_=quadrant_lstm.model.encoder.ConvEncoder": "does not take "
    "name or weights or frozen or size; remove them with ~model.encoder.name ~model.encoder.weights ~model.encoder.f",
    "+trainer.max_epoch=5": "trainer.max_epoch: there is no such key; did you mean trainer.max_epochs?",
    "optimizer._target_=torch.optim.RMSprop": "optimizer.betas: torch.optim.RMSprop does not take betas or fused; "
    "remove them with ~optimizer.betas ~optimizer.fused.",
    "optimizer._target_=torch.optim.RMSprop +optimizer.alfa=0.9": "optimizer.alfa: there is no such key; did you mean "
    "optimizer.alpha?",
    "optimizer._target_=torch.optim.Adamm": "optimizer._target_: there is no class torch.optim.Adamm; did you "
    "mean torch.optim.Adam?",
    "~schedule.max_lr schedule=onecycle": "schedule.max_lr: is missing; add e.g. schedule.max_lr=",
}
SCRIPT_MISTAKES = {
    ("evaluate.py",): "run: is missing; add run=FOLDER or run=latest.",
    ("evaluate.py", "run=nowhere"): "run: nowhere is not a run folder",
    ("evaluate.py", "runn=latest"): "runn: there is no such key; did you mean run?",
    ("predict.py", "run=nowhere"): "run: nowhere is not a run folder",
    (
        "export.py",
        "format=pdf",
    ): "format: 'pdf' is not one of onnx, torch, safetensors, keras, html; write e.g. format=onnx.",
}


def of_train(mistakes: dict[str, str]) -> dict[tuple[str, ...], str]:
    return {("train.py", *words.split()): line for words, line in mistakes.items()}


BEFORE_TORCH = of_train(ANSWERED_WITHOUT_TORCH)
MISTAKES = BEFORE_TORCH | of_train(OTHERS) | SCRIPT_MISTAKES
