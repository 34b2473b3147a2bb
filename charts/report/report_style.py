"""Style sheet of the fairness report: one column on a phone, at most 1100 pixels on a screen, readable in print."""

from ..core.style import FAINT, GRID, INK, PALETTE

STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #fff; color: {INK}; font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere; }}
main {{ max-width: 1100px; margin: 0 auto; padding: 20px 16px 60px; }}
h1 {{ font-size: 1.75rem; line-height: 1.2; margin: 0 0 4px; }}
h2 {{ font-size: 1.3rem; margin: 0 0 8px; }}
h3 {{ font-size: 1.05rem; margin: 0 0 6px; }}
h4 {{ font-size: 1rem; margin: 0; }}
p {{ margin: 0 0 8px; }}
section {{ border-top: 1px solid {GRID}; margin-top: 24px; padding-top: 16px; }}
.subtitle, .faint, .aim, .legend {{ color: {FAINT}; font-size: .875rem; }}
.faint {{ margin-bottom: 8px; }}
.warning {{ background: #FFF6DF; border: 1px solid {PALETTE[1]}; border-left-width: 6px; border-radius: 4px; padding: 10px 14px 2px;
  margin: 10px 0; }}
.sides {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 16px 32px; }}
.side {{ min-width: 0; }}
.panel {{ margin: 0 0 22px; }}
.figure {{ font-weight: 600; margin: 0; }}
.row {{ display: grid; grid-template-columns: minmax(84px, 20%) 1fr 132px; gap: 10px; align-items: center; margin: 7px 0; }}
.name {{ font-size: .9375rem; }}
.bars {{ position: relative; border-left: 1px solid {FAINT};
  background: repeating-linear-gradient(to right, {GRID} 0 1px, transparent 1px 25%); }}
.bars.centred {{ border-left: 0; }}
.track {{ position: relative; height: 18px; margin: 2px 0; }}
.bar, .whisker, .zero {{ position: absolute; top: 0; height: 100%; }}
.bar {{ left: 0; }}
.steered {{ background: {PALETTE[0]}; }}
.base {{ background: #A6A6A6; }}
.whisker {{ top: 4px; height: 10px; border: 2px solid {INK}; border-top: 0; border-bottom: 0; }}
.whisker::after {{ content: ""; position: absolute; left: 0; right: 0; top: 4px; border-top: 2px solid {INK}; }}
.zero {{ left: 50%; border-left: 2px solid {INK}; }}
.tick {{ position: absolute; top: -3px; bottom: -3px; margin-left: -2px; border-left: 4px solid {PALETTE[3]}; }}
.tick.equal {{ border-left: 3px dashed {PALETTE[5]}; }}
.numbers {{ font-size: .875rem; font-variant-numeric: tabular-nums; line-height: 1.3; }}
.of-base, .aim {{ display: block; color: {FAINT}; }}
.aim {{ font-size: .8125rem; }}
.legend {{ margin-top: 8px; }}
.key {{ display: inline-block; width: 14px; height: 12px; margin: 0 5px 0 8px; vertical-align: -1px; }}
.legend .key:first-child {{ margin-left: 0; }}
.whisker-key {{ border: 2px solid {INK}; border-top: 0; border-bottom: 0; height: 10px; }}
.tick-key {{ width: 4px; background: {PALETTE[3]}; }}
.wide {{ overflow-x: auto; margin: 4px 0 14px; }}
table {{ border-collapse: collapse; width: 100%; font-size: .875rem; font-variant-numeric: tabular-nums; }}
th, td {{ text-align: left; vertical-align: top; padding: 6px 10px; border-bottom: 1px solid {GRID}; min-width: 4.5em; }}
th {{ background: #F4F4F4; color: {FAINT}; font-weight: 600; overflow-wrap: normal; }}
.grid {{ display: flex; flex-wrap: wrap; gap: 4px; }}
.grid img {{ width: 92px; height: auto; display: block; }}
.grid img.tiny {{ width: 64px; image-rendering: pixelated; }}
@media (max-width: 640px) {{
  h1 {{ font-size: 1.45rem; }}
  .row {{ grid-template-columns: 78px 1fr 98px; gap: 8px; }}
  .wide {{ overflow: visible; }}
  table, tbody, tr, td {{ display: block; width: 100%; }}
  thead {{ display: none; }}
  tr {{ border-bottom: 1px solid {GRID}; padding: 6px 0; }}
  td {{ border: 0; padding: 0; display: inline; }}
  td::before {{ content: attr(data-head) " "; color: {FAINT}; }}
  td:not(:last-child)::after {{ content: "; "; }}
  td:first-child {{ display: block; font-weight: 600; }}
  td:first-child::before, td:first-child::after {{ content: "" !important; }}
}}
@media print {{ section, .panel, tr {{ break-inside: avoid; }} }}
"""
