"""Scores a checkpoint: python run_eval.py --workdir=DIR [--step=best] [--split=val]."""

from absl import flags

from fcn_jax import cli
from fcn_jax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of run_train.py.")
_STEP = flags.DEFINE_string("step", "best", "best, latest, or a step's number.")
_SPLIT = flags.DEFINE_string("split", "", "Split to score; default: validation.")


def main() -> None:
    """Prints a table and writes ``eval_<split>_<step>.json`` to the workdir."""
    from fcn_jax.evaluation import evaluate, trained
    from fcn_jax.reporting import table

    if _WORKDIR.value is None:
        raise UserError("--workdir is missing; give the folder of a training run.")
    run = trained.load(_WORKDIR.value, _STEP.value)
    cli.enable_compilation_cache(run.config.compilation_cache)
    scores, path = evaluate.evaluate_run(run, _WORKDIR.value, _SPLIT.value)
    print(table.per_class_table(list(scores["iou_per_class"]), scores))
    print(f"Written to {path}.")


if __name__ == "__main__":
    cli.run(main)
