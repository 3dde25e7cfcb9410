"""``postroom queue stat``: how much waits, for whom, how old it is, who sent it."""

from typing import Any

import click
import msgspec
from rich.table import Table

from postroom.admin.whole import WholeQueue
from postroom.cli.options import config_option, json_option, load_or_fail
from postroom.cli.whole import on_queue, tell_drop
from postroom.cli.words import console, octets, plain
from postroom.observe.render import json_line
from postroom.spool.shape import AGES_US, HopShape, SenderShape, Shape

TOP = 20


class Stat(msgspec.Struct, frozen=True):
    """What ``--json`` prints.

    ``totals`` by name; ``ages_us`` the upper ends of the columns ``by_age`` of
    ``hops``, which have one more, for what is older.
    """

    totals: dict[str, int]
    ages_us: tuple[int, ...]
    hops: tuple[HopShape, ...]
    senders: tuple[SenderShape, ...]


@click.command()
@json_option
@click.option("--top", default=TOP, show_default=True, help="Rows; 0 for all.")
@click.option("--totals", is_flag=True, help="Only what is counted all the time.")
@config_option
def stat(path: str, as_json: bool, top: int, totals: bool) -> None:
    """Count what waits: in all, by destination and age, by the sender's domain.

    All numbers are exact. Ages are columns in minutes (5: less than five minutes);
    "stopped" is held, quarantined or put aside.
    """
    config = load_or_fail(path)

    async def work(whole: WholeQueue) -> None:
        counts = (await whole.counts()).counts
        shape = Shape() if totals else await whole.shape()
        # Printed here: what could be reached is told even if not all could.
        if as_json:
            _print_json(counts, shape, top or None)
        else:
            _print_tables(counts, shape, top or None)
        tell_drop(config, whole)

    on_queue(config, work)


def _print_json(counts: dict[str, int], shape: Shape, top: int | None) -> None:
    told = Stat(counts, AGES_US, shape.hops[:top], shape.senders[:top])
    click.echo(json_line(told))


def _print_tables(counts: dict[str, int], shape: Shape, top: int | None) -> None:
    _print_totals(counts)
    if shape.hops:
        _print_hops(shape.hops[:top], len(shape.hops))
        _print_senders(shape.senders[:top], len(shape.senders))


def _print_totals(counts: dict[str, int]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, number in counts.items():
        shown = octets(number) if name == "octets" else f"{number:,}"
        table.add_row(name if name != "octets" else "size", shown)
    console().print(table)


def _print_hops(hops: tuple[HopShape, ...], there: int) -> None:
    table = _table("Destination", "Recipients")
    for age_us in AGES_US:
        table.add_column(str(age_us // 60_000_000), justify="right")
    table.add_column(f"{AGES_US[-1] // 60_000_000}+", justify="right")
    table.add_column("Stopped", justify="right")
    for hop in hops:
        name = hop.hop or "(to be expanded)"
        ages = (f"{n:,}" if n else "" for n in hop.by_age)
        stopped = f"{hop.stopped:,}" if hop.stopped else ""
        table.add_row(plain(name), f"{hop.recipients:,}", *ages, stopped)
    _print(table, there - len(hops), "destinations")


def _print_senders(senders: tuple[SenderShape, ...], there: int) -> None:
    table = _table("Sender's domain", "Messages", "Size")
    for one in senders:
        name = one.domain or "<> or local"
        table.add_row(plain(name), f"{one.messages:,}", octets(one.octets))
    _print(table, there - len(senders), "sender domains")


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _print(table: Table, more: int, what: str) -> None:
    out: Any = console()
    out.print()
    out.print(table)
    if more > 0:
        out.print(f"... and {more:,} more {what} (--top 0)")
