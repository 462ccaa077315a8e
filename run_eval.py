"""Scores a run, or published weights: a table, and if wanted a report with pictures.

python run_eval.py --workdir=runs/fcn8s --report
python run_eval.py --config=configs/reference/voc_fcn8s.py --config.init_from=WEIGHTS
"""

from absl import flags
from ml_collections import config_flags

from fcn_jax import cli, processes
from fcn_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Score config.init_from, without training.", lock_config=True
)
_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of a run of run_train.py; with --config the folder that the scores go to, "
    "default runs/<name of the config>.",
)
_STEP = flags.DEFINE_string(
    "step", "best", "Of a run: best, latest, or a step's number."
)
_SPLIT = flags.DEFINE_string("split", "", "Split to score; default: validation.")
_REPORT = flags.DEFINE_bool(
    "report",
    False,
    "Write report.html, too: one page with tables, plots, and the best and worst "
    "images; needs pip install -e '.[report]'.",
)
_THRESHOLDS, _MESH = cli.define_thresholds(), cli.define_mesh()


def main() -> None:
    """Prints a table; writes ``eval_<split>_<step>.json``, and a report if asked."""
    from fcn_jax.evaluation import score, trained
    from fcn_jax.reporting import report, table

    config, workdir = _CONFIG.value, _WORKDIR.value
    mesh = cli.make_mesh(_MESH.value)
    if _REPORT.value:
        report.require_libraries()
    if config is None:
        if workdir is None:
            raise UserError(
                "--workdir is missing; give the folder of a training run, or --config "
                "and --config.init_from to score weights."
            )
        thresholds = cli.numbers(_THRESHOLDS)
        run = trained.load(workdir, _STEP.value, mesh, thresholds)
        cli.enable_compilation_cache(run.config.compilation_cache)
        scores, path = score.evaluate_run(
            run, _SPLIT.value, workdir, report=_REPORT.value
        )
    else:
        for name in ("step", "thresholds"):
            if flags.FLAGS[name].present:
                raise UserError(
                    f"--{name} is of a run; leave it out, or set "
                    "--config.init_from=WORKDIR/checkpoints/STEP, --config.thresholds."
                )
        cli.enable_compilation_cache(config.compilation_cache)
        workdir = workdir or cli.default_workdir()
        scores, path = score.evaluate_weights(
            config, _SPLIT.value, workdir, mesh, report=_REPORT.value
        )
    processes.say(table.per_class_table(list(scores["iou_per_class"]), scores))
    page = f" and {path.parent / report.NAME}" if _REPORT.value else ""
    processes.say(f"Written to {path}{page}.")


if __name__ == "__main__":
    cli.run(main)
