"""Is a folder fit to be trained on? Everything that can be told before training."""

import collections
import dataclasses
import pathlib
from collections.abc import Sequence

from fcn_jax.data import folder, images
from fcn_jax.data import label_map as label_map_lib
from fcn_jax.errors import UserError
from fcn_jax.inspection import command, meaning, tables
from fcn_jax.inspection import listing as listing_lib
from fcn_jax.inspection import survey as survey_lib
from fcn_jax.inspection.findings import Findings
from fcn_jax.inspection.kinds import Level


@dataclasses.dataclass
class Report:
    """All that was found out.

    Attributes:
        source: The folder, absolute.
        output: The folder that the results go to, absolute.
        listing: Its files.
        survey: What was measured.
        findings: What is wrong or worth a look.
        meant: What the values of the masks mean.
        intensity_range: The range stated or proposed; () for none.
        splits: The items of each split, by number.
        counted: Of each item, the pixels of each class id; empty without a reading.
        table: The same of the splits; None without a reading.
        settings: Those to train with, such as {"data.name": "folder"}.
    """

    source: pathlib.Path
    output: pathlib.Path
    listing: listing_lib.Listing
    survey: survey_lib.Survey
    findings: Findings
    meant: meaning.Meaning
    intensity_range: tuple[float, ...] = ()
    splits: dict[str, list[int]] = dataclasses.field(default_factory=dict)
    counted: list[dict[int, int]] = dataclasses.field(default_factory=list)
    table: tables.Table | None = None
    settings: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def command(self) -> list[str]:
        """The command that trains on the folder."""
        return command.words(self.settings)

    @property
    def ok(self) -> bool:
        """Whether training takes the folder as the command says."""
        return not self.findings.of(Level.ERROR)


def parse_range(ends: Sequence[str]) -> tuple[float, ...]:
    """Returns the numbers of the flag ``--intensity_range``; raises UserError."""
    try:
        return tuple(map(float, ends))
    except ValueError as error:
        raise UserError(
            f"--intensity_range={','.join(ends)} must be two numbers, such as 0,4095."
        ) from error


def inspect(
    source: str,
    output: str | None = None,
    *,
    image_dir: str = "images",
    mask_dir: str = "masks",
    multilabel: bool | None = None,
    label_map: str = "",
    intensity_range: tuple[float, ...] = (),
) -> Report:
    """Looks at every file of a folder once; stops at no fault of the data.

    Args:
        source: The folder, or a .tar file in VOC's layout.
        output: The folder that the results go to, where a long label map is written
            at once; None: inspect/<name of the source>.
        image_dir: For two parallel folders: the images'.
        mask_dir: The masks'.
        multilabel: Whether masks lie in a folder for each class; None: recognised.
        label_map: What the values of the masks mean; "": recognised and proposed.
        intensity_range: The values that become 0 and 255; (): proposed if needed.

    Raises:
        UserError: If the folder does not exist or the settings make no sense.
    """
    images.check_intensity_range(intensity_range)
    path = pathlib.Path(source).expanduser().absolute()
    stated = label_map_lib.parse(label_map, path) if label_map else None
    output = pathlib.Path(output or f"inspect/{path.name}").expanduser().absolute()
    findings = Findings()
    listing = listing_lib.find(
        str(path),
        findings,
        image_dir=image_dir,
        mask_dir=mask_dir,
        multilabel=multilabel,
    )
    for name in filter(None, (listing.image_dir, listing.mask_dir)):
        folder = (path / name).resolve()
        if output.resolve() == folder or folder in output.resolve().parents:
            raise UserError(
                f"--output={output} lies in {folder}, whose files are the data; choose "
                "another folder."
            )
    if multilabel and not listing.classes:
        raise UserError(
            f"--multilabel: {path / mask_dir} has no folders of masks, one for each "
            "class; add them, or leave --multilabel out."
        )
    classes = meaning.class_names(listing, stated, findings)
    output.mkdir(parents=True, exist_ok=True)  # Says so before the work if it cannot.
    as_colours = classes.label_map is not None and classes.label_map.colours
    survey = survey_lib.make(listing, findings, intensity_range, as_colours)
    meant = meaning.settle(listing, survey, classes, findings)
    report = Report(path, output, listing, survey, findings, meant, intensity_range)
    _propose_range(report)
    train, val = _choose_splits(report)
    report.settings, map_file = command.compose(
        path, output, listing, survey, meant, report.intensity_range, (train, val)
    )
    command.write_whole(output / "label_map.txt", map_file)
    if meant.reading is not None:
        report.counted = tables.count_ids(
            survey.items, meant.reading, listing.classes and meant.names, findings
        )
    _split(report)
    _report_duplicates(report, train)
    if meant.reading is not None:
        multilabel = bool(listing.classes)
        report.table = tables.tabulate(
            survey.items, report.counted, meant.names, report.splits, multilabel
        )
        tables.report(report.table, train, val, findings)
    return report


def _propose_range(report: Report) -> None:
    if report.intensity_range:
        return
    proposed = survey_lib.propose_range(report.survey)
    if proposed is None:
        return
    report.intensity_range = tuple(float(f"{end:.6g}") for end in proposed)
    if report.findings.names("beyond_range"):
        # The command has the range, so that training reads these.
        report.findings.add("beyond_range", level=Level.WARNING)
        for item in report.survey.items:
            item.sound |= item.beyond_range
    else:
        report.findings.add("narrow_range", count=report.survey.num_wide)


def _choose_splits(report: Report) -> tuple[str, str]:
    """The lists to train and to validate with."""
    lists = report.listing.splits
    if lists is None:
        if report.listing.layout and len(report.listing.pairs) < 2:
            report.findings.add("too_few", count=len(report.listing.pairs))
        return "train", "val"
    train = next((s for s in ("train", "training", "trainval") if s in lists), "")
    val = next((s for s in ("val", "valid", "validation", "test") if s in lists), "")
    if not train or not val:
        report.findings.add("no_lists", count="")
    return train or "train", val or "val"


def _split(report: Report) -> None:
    """Finds which items are in which split, as training does with the settings."""
    settings, names = report.settings, report.listing.splits or {}
    if report.listing.layout:
        try:
            config = folder.scan(
                settings["data.source"],
                image_dir=settings.get("data.image_dir", "images"),
                mask_dir=settings.get("data.mask_dir", "masks"),
                label_map=settings.get("data.label_map", ""),
                intensity_range=report.intensity_range,
                multilabel=bool(report.listing.classes),
                missing_masks=settings.get("data.missing_masks", ""),
            )
            names = {k: [item.name for item in v] for k, v in config.splits.items()}
        except UserError as error:
            if report.ok:
                report.findings.add("refused", str(error), count="")
    places = {item.pair.name: i for i, item in enumerate(report.survey.items)}
    report.splits = {
        split: [places[name] for name in members if name in places]
        for split, members in names.items()
    }


def _report_duplicates(report: Report, train: str) -> None:
    """Finds equal images, and names that are both trained on and scored."""
    items, findings = report.survey.items, report.findings
    homes = collections.defaultdict(set)
    for split, members in report.splits.items():
        for i in members:
            homes[i].add(split)
    groups = collections.defaultdict(list)
    for i, item in enumerate(items):
        if item.digest:
            groups[item.digest].append(i)
    for group in groups.values():
        if len(group) < 2:
            continue
        shown = [
            items[i].pair.image
            + (f" ({', '.join(sorted(homes[i]))})" if homes[i] else "")
            for i in group
        ]
        across = len({frozenset(homes[i]) for i in group}) > 1
        kind = "duplicate_across" if across else "duplicate_within"
        findings.add(kind, " = ".join(shown))
    for i, splits in homes.items():
        scored = [name for name in splits if not name.startswith("train")]
        if train in splits and scored:
            findings.add("overlap", f"{items[i].pair.name} ({train}, {scored[0]})")
