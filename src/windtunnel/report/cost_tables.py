"""A run's cost as tables for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from windtunnel.inspect.cost import Cost


def cost_tables(cost: Cost) -> list[Table | Text]:
    """Parameters, FLOPs, memory and shapes, in this order, and a line for each note."""
    tables: list[Table | Text] = [_parameters(cost), _flops(cost), _memory(cost), _shapes(cost)]
    return tables + [Text(f"note: {note}") for note in cost.notes]


def _parameters(cost: Cost) -> Table:
    table = _table("Parameters", "module", "formula", "parameters >", "share >")
    table.caption = ", ".join(f"{name} {value}" for name, value in cost.names.items())
    for row in cost.parameters:
        share = f"{row.n_parameters / cost.n_parameters:.1%}"
        table.add_row(row.module, row.formula, f"{row.n_parameters:,}", share)
    table.add_section()
    table.add_row("total", f"torch counts {cost.n_parameters_counted:,}", f"{cost.n_parameters:,}", "100.0%")
    return table


def _flops(cost: Cost) -> Table:
    flops = cost.flops
    table = _table(f"Matrix-multiply FLOPs a token at context {cost.context_length}", "part", "FLOPs >", "share >")
    for part, n in flops.forward.items():
        table.add_row(part, f"{n:,.0f}", f"{n / flops.forward_per_token:.1%}")
    table.add_section()
    table.add_row("forward", f"{flops.forward_per_token:,.0f}", "100.0%")
    table.add_row("forward, counted by torch", f"{flops.forward_counted:,.0f}")
    table.add_row("training (three times the forward)", f"{flops.training_per_token:,.0f}")
    table.add_row("one training step", f"{flops.training_per_step:.4g}")
    return table


def _memory(cost: Cost) -> Table:
    memory, batch = cost.memory, f"{cost.micro_batch} x {cost.context_length} tokens, {cost.precision}"
    table = _table("Memory", "what", "bytes >", ">")
    rows = [
        ("weights", memory.weights),
        ("gradients", memory.gradients),
        ("optimizer state", memory.optimizer),
        (f"activations kept for the backward pass ({batch})", memory.activations),
        ("training, together", memory.training),
        ("KV cache, one token", memory.kv_cache_per_token),
        (f"KV cache, the whole context of {cost.context_length}", memory.kv_cache_full_context),
    ]
    for what, n in rows:
        table.add_row(what, f"{n:,}", readable_bytes(n), end_section=what.startswith("training"))
    return table


def _shapes(cost: Cost) -> Table:
    table = _table("Shapes of one forward pass", "module", "operation", "shape >", "type", "bytes each >")
    table.caption = "attention in the open (attend_reference); a view has no bytes of its own"
    for row in cost.shapes:
        shape = " x ".join(str(n) for n in row.shape) or "one number"
        table.add_row(row.module or "model", row.operation, shape, row.dtype, f"{row.bytes:,}" if row.bytes else "view")
    return table


def readable_bytes(n: int) -> str:
    """In units of 1024: 1536 is '1.5 KiB'."""
    size = float(n)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for column in columns:
        name, right = column.removesuffix(">").strip(), column.endswith(">")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table
