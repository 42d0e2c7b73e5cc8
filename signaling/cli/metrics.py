"""`voiceforge metrics`: the reference of what is counted, made from the metrics themselves."""

from __future__ import annotations

from pathlib import Path

import click

from mediaserver.metrics import LARGEST, SMALLEST, Metrics

HEAD = """\
# Metrics

What `/metrics` shows, made by `voiceforge metrics` from the code. Units are seconds and bytes; labels are closed sets
of words, never names of clients, keys or tenants. A server of several workers shows all of them, each sample with a
label `worker`: `sum` them up over it, but for gauges that are marked `max` or `min`, which tell of what workers share.
`process_*` is of each process.

| metric | type | labels | what it says |
|---|---|---|---|
"""


def metrics_reference() -> str:
    """The page, as Markdown."""
    rows = []
    for metric in Metrics().families():
        shown = "max" if metric.name in LARGEST else "min" if metric.name in SMALLEST else ""
        kind = f"{metric.kind}, {shown}" if shown else metric.kind
        labels = " ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {kind} | {labels} | {metric.text} |\n")
    return HEAD + "".join(rows)


@click.command()
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write.  [default: standard output]"
)
def metrics(output: Path | None) -> None:
    """Write the reference of all metrics, as Markdown."""
    if output is None:
        click.echo(metrics_reference(), nl=False)
    else:
        output.write_text(metrics_reference(), encoding="utf-8")
