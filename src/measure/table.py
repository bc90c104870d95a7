# SPDX-License-Identifier: Apache-2.0
"""Tables for the terminal and for Markdown files."""


def render(head, rows, markdown=False):
    """Lay out rows of strings or numbers under their head: columns in line, or as a Markdown table."""
    lines = [[str(cell) for cell in line] for line in (head, *rows)]
    if markdown:
        lines.insert(1, ["---"] * len(head))
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)
