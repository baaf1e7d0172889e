"""The progress bar of a run that counts steps, not epochs."""

from lightning.pytorch.callbacks import RichProgressBar


class StepProgress(RichProgressBar):
    """Steps done of all steps, the time that is left, and the newest figures."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"{'Training':{len(self.validation_description)}}"
