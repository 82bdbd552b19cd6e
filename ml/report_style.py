"""The report's style sheet, part of the page itself: one file that can be mailed, light or dark as the reader likes."""

STYLE = """
:root {
  color-scheme: light dark;
  --ink: light-dark(#1c2330, #e4e8ef); --soft: light-dark(#5a6577, #97a2b5);
  --line: light-dark(#dfe4eb, #2c3442); --ground: light-dark(#fff, #12161d); --panel: light-dark(#f3f5f9, #1b212c);
  --blue: light-dark(#1f6fb5, #5aa4ee); --red: light-dark(#bf4310, #f0824f); --amber: light-dark(#a86400, #efb14f);
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 74rem; padding: 2rem clamp(1rem, 4vw, 3rem) 5rem;
  font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--ground);
}
h1 { margin: 0; font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 3.5rem 0 .75rem; padding-bottom: .35rem; border-bottom: 1px solid var(--line); overflow-wrap: anywhere; }
h2::first-letter { text-transform: uppercase; }
h3 { margin: 2.25rem 0 .35rem; font-size: 1.05rem; }
p { max-width: 46rem; margin: .35rem 0 .75rem; }
.soft, .lead, figcaption small { color: var(--soft); }
.lead { margin: .35rem 0 0; }
code { font: .86em/1.4 ui-monospace, monospace; overflow-wrap: anywhere; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .75rem; margin: 1rem 0; }
.card { padding: .85rem 1rem; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
.card b { display: block; font-size: 1.65rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card span { display: block; font-size: .85rem; color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
.wide > table { min-width: min(100%, 30rem); }
th { text-align: left; font-weight: 600; font-size: .8rem; color: var(--soft); white-space: nowrap; }
tbody th {
  position: sticky; left: 0; font-weight: 500; font-size: .9rem; color: var(--ink); background: var(--ground);
  white-space: normal; overflow-wrap: break-word; max-width: 14rem;
}
th, td { padding: .3rem 1.1rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
td.n, th.n { text-align: right; white-space: nowrap; }
td small { color: var(--soft); white-space: nowrap; }
td.n small { display: block; font-size: .72rem; line-height: 1.2; }
dl {
  display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: .15rem 1.25rem;
  margin: 1rem 0; font-size: .9rem;
}
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.flag { padding: 0 .5rem; border: 1px solid; border-radius: 1rem; font-size: .78rem; color: var(--soft); }
.flag.worse { color: var(--red); }
.note { padding: .75rem 1rem; border-left: 3px solid var(--amber); background: var(--panel); }
.side { display: flex; flex-wrap: wrap; gap: 1.5rem 2.5rem; align-items: flex-start; }
.side > * { min-width: 0; }
.calibration figure { margin: 0; flex: 0 1 21rem; }
.calibration figcaption { font-size: .85rem; font-weight: 600; margin-bottom: .25rem; }
.calibration figcaption::first-letter { text-transform: uppercase; }
.said-of { flex: 1 1 16rem; }
.wide + .wide { margin-top: 1.25rem; }
.plot { max-width: 100%; height: auto; display: block; }
.plot.fixed { max-width: none; }
.inline { display: block; }
.sweeps { display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); gap: 1rem; }
.sweeps figure, .sheet figure { margin: 0; min-width: 0; }
.sweeps .plot { width: 100%; }
.sweeps figcaption small { font-weight: 400; }
.sweeps figcaption { font-size: .85rem; font-weight: 600; overflow-wrap: anywhere; }
.key span { display: inline-block; margin-right: 1.1rem; }
.key i { display: inline-block; width: 1.3rem; border-top: 3px solid; vertical-align: middle; margin-right: .35rem; }
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1.1rem .9rem; }
.sheet .picture {
  display: grid; place-items: center; aspect-ratio: 1; overflow: hidden; background: var(--panel); border-radius: 6px;
}
.sheet img { width: 100%; height: 100%; object-fit: contain; }
.sheet figcaption { margin-top: .35rem; font-size: .85rem; line-height: 1.35; overflow-wrap: anywhere; }
.sheet small { display: block; }
.said { color: var(--red); font-weight: 600; }
details { margin: 1rem 0; }
summary { cursor: pointer; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
svg .count { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .strong { font-weight: 600; }
svg .track { fill: var(--panel); }
.inline .track { fill: var(--line); }
svg .bar { fill: var(--blue); fill-opacity: .75; }
svg .good { fill: var(--blue); }
svg .bad { fill: var(--red); }
svg .whisker { fill: none; stroke: var(--ink); stroke-width: 1.3; }
svg .grid { stroke: var(--line); }
svg .ideal, svg .mark { stroke: var(--soft); stroke-dasharray: 4 4; }
svg .zero { stroke: var(--soft); }
svg .dot { fill: var(--blue); stroke: var(--ground); }
svg polyline { fill: none; stroke-width: 2; }
svg .precision { stroke: var(--blue); } .key .precision { color: var(--blue); }
svg .recall { stroke: var(--amber); stroke-dasharray: 5 2.5; }
.key .recall { color: var(--amber); border-top-style: dashed; }
svg .f1 { stroke: var(--ink); } .key .f1 { color: var(--ink); }
svg .band { fill: var(--ink); fill-opacity: .16; }
@media (max-width: 34rem) {
  .sweeps { grid-template-columns: 1fr 1fr; gap: .75rem .5rem; }
  th, td { padding-right: .8rem; }
  .inline { width: 72px; height: auto; }
  h2 { margin-top: 2.5rem; }
}
@media print { body { max-width: none; } details { display: block; } }
"""
