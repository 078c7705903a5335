"""One callback in a Lightning trainer.

A one-layer transformer learns addition modulo 37 from 70 % of the pairs. You will see two events in the terminal: the
training set is memorized within the first hundred steps, and some hundreds of steps later the representations become
simpler, which is when the held-out accuracy rises. Then look at the curves:

    python examples/01_lightning.py
    tensorboard --logdir runs/examples
"""

import argparse

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger

from thermo_monitor.demo.modular import Transformer, modular_addition
from thermo_monitor.lightning import ThermoMonitor


class Addition(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = Transformer(p=37)
        self.example_train, self.example_held_out = modular_addition(p=37)

    def training_step(self, batch, index):
        tokens, answers = batch
        return F.cross_entropy(self.model(tokens), answers)

    def validation_step(self, batch, index):
        tokens, answers = batch
        self.log("held_out_accuracy", (self.model(tokens).argmax(-1) == answers).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3, betas=(0.9, 0.98), weight_decay=3.0)

    def loader(self, split):
        data = torch.utils.data.TensorDataset(split.tokens, split.answers)
        return torch.utils.data.DataLoader(data, batch_size=len(data))  # the whole set is one batch

    def train_dataloader(self):
        return self.loader(self.example_train)

    def val_dataloader(self):
        return self.loader(self.example_held_out)


def main(steps: int) -> None:
    L.seed_everything(0)
    torch.set_num_threads(1)  # the model is too small for two
    trainer = L.Trainer(
        max_steps=steps,
        max_epochs=-1,
        check_val_every_n_epoch=50,
        logger=TensorBoardLogger("runs/examples", name="lightning", version=""),
        callbacks=[ThermoMonitor(every=5, preset="grokking")],  # this line is all that is added
        enable_model_summary=False,
        enable_checkpointing=False,
        log_every_n_steps=1,
    )
    trainer.fit(Addition())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    main(parser.parse_args().steps)
