"""The chart for the README: bars with their figures, readable on light and on dark pages."""

from xml.sax.saxutils import escape

from .contenders import ALL

WIDTH = 860
LABEL_WIDTH = 312
FIGURE_WIDTH = 110
BAR_HEIGHT = 18
ROW_HEIGHT = 26
HEADING_HEIGHT = 46
TITLES = {
    "pulse": "Single pulses a second, {connections} connections",
    "list": "Pulses a second in lists of 100, {connections} connections",
    "ndjson": "Pulses a second in NDJSON of 1000, {connections} connections",
}
# Colours that keep their contrast on white and on GitHub's dark grey.
STYLE = """
    text { font: 13px system-ui, sans-serif; fill: #24292f }
    .heading { font-weight: 600; font-size: 15px }
    .note { font-size: 11px; fill: #57606a }
    .ours { fill: #0969da } .other { fill: #8c959f } .limit { fill: #d0d7de }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3 } .note { fill: #9198a1 }
      .ours { fill: #4493f8 } .other { fill: #6e7681 } .limit { fill: #3d444d }
    }
"""


def chart(merged, facts, connections=256):
    """An SVG document."""
    parts, y = [], 8
    storing = {contender.name for contender in ALL if contender.stores}
    for case in TITLES:
        # Who does nothing with a list takes so many that no other bar could be seen.
        rows = [row for row in merged if row["case"] == case and (case == "pulse" or row["contender"] in storing)]
        chosen = min({row["connections"] for row in rows}, key=lambda count: abs(count - connections), default=None)
        rows = {row["contender"]: row for row in rows if row["connections"] == chosen}
        if rows:
            group, y = panel(TITLES[case].format(connections=chosen), rows, y)
            parts += group
    note = (f"Medians of {facts['rounds']} interleaved rounds of {facts['seconds']} s on {facts['cores']} cores that the "
            "client shares. scripts/bench --chart makes this.")
    parts.append(f'<text class="note" x="8" y="{y + 14}">{escape(note)}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 26}" width="{WIDTH}" role="img" '
            f'aria-label="Pulses a second of this ingestor and of alternatives">\n<style>{STYLE}</style>\n'
            + "\n".join(parts) + "\n</svg>\n")


def panel(title, rows, y):
    parts = [f'<text class="heading" x="8" y="{y + 24}">{escape(title)}</text>']
    y += HEADING_HEIGHT - 8
    most = max(row["pulses_per_second"] for row in rows.values()) or 1
    for contender in ALL:
        row = rows.get(contender.name)
        if row is None:
            continue
        length = max(row["pulses_per_second"] / most * (WIDTH - LABEL_WIDTH - FIGURE_WIDTH), 1)
        kind = "ours" if contender.name.startswith("ours") else "other" if contender.stores else "limit"
        middle = y + BAR_HEIGHT - 5
        parts.append(f'<text x="{LABEL_WIDTH - 8}" y="{middle}" text-anchor="end">{escape(contender.label)}</text>')
        parts.append(f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{y}" width="{length:.0f}" height="{BAR_HEIGHT}" rx="2"/>')
        figure = f"{row['pulses_per_second']:,.0f}".replace(",", "\u202f")
        parts.append(f'<text x="{LABEL_WIDTH + length + 6:.0f}" y="{middle}">{figure}</text>')
        y += ROW_HEIGHT
    return parts, y + 8
