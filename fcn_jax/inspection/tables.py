"""How much of each class there is, in pixels and in images, by split."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

from fcn_jax.data import labels
from fcn_jax.inspection import survey as survey_lib
from fcn_jax.inspection.findings import Findings
from fcn_jax.inspection.readings import Reading, show_colour


@dataclasses.dataclass
class Row:
    """Of one class.

    Attributes:
        name: The class.
        pixels: By split: its pixels.
        images: By split: the images that it is in.
    """

    name: str
    pixels: dict[str, int]
    images: dict[str, int]


@dataclasses.dataclass
class Table:
    """Of all classes.

    Attributes:
        rows: By class id.
        void: By split: pixels that are void.
        labelled: By split: pixels that are not, each once, also if multilabel.
        num_images: By split.
        total: The key of all splits together, each image once.
    """

    rows: list[Row]
    void: dict[str, int]
    labelled: dict[str, int]
    num_images: dict[str, int]
    total: str = "all"

    def share(self, row: Row, split: str = "all") -> float:
        """The share of a class in the labelled pixels; 0 if there are none."""
        return row.pixels[split] / max(1, self.labelled[split])

    def void_share(self, split: str = "all") -> float:
        """The share of void in all pixels."""
        return self.void[split] / max(1, self.void[split] + self.labelled[split])


def count_ids(
    items: Sequence[survey_lib.Item],
    reading: Reading,
    classes: Sequence[str],
    findings: Findings,
) -> list[dict[int, int]]:
    """Returns for each item the pixels of each class id; 255 is void.

    Args:
        items: What was found in the masks.
        reading: What the values mean.
        classes: For multilabel the folders of masks, by class id; else empty.
        findings: Values without a meaning go there.
    """
    result = []
    for item in items:
        counts, unknown = collections.Counter(), {}
        for name, values in item.masks.items():
            for value, pixels in values.items():
                class_id = reading.ids.get(value)
                if class_id is None:
                    unknown.setdefault(item.pair.masks[name], []).append(value)
                elif class_id == labels.IGNORE:
                    counts[labels.IGNORE] += pixels
                elif not classes:
                    counts[class_id] += pixels
                elif class_id == 1:
                    counts[classes.index(name)] += pixels
        for file, values in unknown.items():
            show = show_colour if reading.colours else str
            shown = ", ".join(map(show, sorted(values)[:5]))
            findings.add("unknown_value", f"{file}: {shown}")
            item.sound = False
        result.append(dict(counts))
    return result


def tabulate(
    items: Sequence[survey_lib.Item],
    counted: Sequence[Mapping[int, int]],
    names: Sequence[str],
    splits: Mapping[str, Sequence[int]],
    multilabel: bool,
) -> Table:
    """Adds up what `count_ids` returns.

    Args:
        items: What was found in the masks.
        counted: Of each item, the pixels by class id.
        names: The classes, by id.
        splits: The items of each split, by number.
        multilabel: Whether a pixel may be of several classes.
    """
    groups = {"all": range(len(items)), **splits}
    rows = [Row(name, {}, {}) for name in names]
    table = Table(rows, {}, {}, {})
    for split, members in groups.items():
        pixels, images = collections.Counter(), collections.Counter()
        labelled = 0
        for i in members:
            pixels.update(counted[i])
            images.update(k for k, count in counted[i].items() if count)
            void = counted[i].get(labels.IGNORE, 0)
            area = items[i].size[0] * items[i].size[1]
            whole = max([sum(m.values()) for m in items[i].masks.values()], default=0)
            labelled += (whole or area) - (0 if multilabel else void)
        for class_id, row in enumerate(rows):
            row.pixels[split], row.images[split] = pixels[class_id], images[class_id]
        table.void[split], table.labelled[split] = pixels[labels.IGNORE], labelled
        table.num_images[split] = len(members)
    return table


def report(table: Table, train: str, val: str, findings: Findings) -> None:
    """Finds classes that are rare or missing, splits without labels, much void."""
    for split in (train, val):
        if split in table.num_images and not table.labelled[split]:
            findings.add("no_labels", split)
    even = 1 / max(1, len(table.rows))
    for row in table.rows:
        if train in table.num_images and not row.images[train]:
            findings.add("never_trained", row.name)
        elif val in table.num_images and not row.images[val]:
            findings.add("never_scored", row.name)
        share = table.share(row)
        if 0 < share < 0.1 * even:
            findings.add("rare", f"{row.name} ({share:.2%})")
    if table.void_share() > 0.3:
        findings.add("void", count=f"{table.void_share():.0%}")
