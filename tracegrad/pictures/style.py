"""The colours and lines of a picture, light and dark, and what makes its HTML answer to the mouse and the keyboard."""

LIGHT = "--bg:#fff;--fg:#1f2328;--dim:#656d76;--rule:#d0d7de;--fwd:#0969da;--bwd:#bc4c00;--input:#1a7f37"
DARK = "--bg:#0d1117;--fg:#e6edf3;--dim:#8b949e;--rule:#30363d;--fwd:#58a6ff;--bwd:#f0883e;--input:#3fb950"

FONT = 'ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace'

SHAPES = f"""
text{{font:11px {FONT};fill:var(--fg)}}
.o,.h{{font-weight:bold}}
.t,.k,.v{{fill:var(--dim)}}.k{{font-weight:normal}}.v{{font-size:10px}}
path{{fill:none;stroke-width:1.3}}
.e{{stroke:var(--fwd)}}path.g{{stroke:var(--bwd);stroke-dasharray:5 2}}.d{{stroke:var(--dim);stroke-dasharray:2 2}}
path.a{{stroke-dasharray:none}}
.k,.h,.c{{paint-order:stroke;stroke:var(--bg);stroke-width:4px;stroke-linejoin:round}}
.f rect{{fill:var(--fwd);fill-opacity:.1;stroke:var(--fwd)}}.f rect{{rx:5px}}
.b rect{{fill:var(--bwd);fill-opacity:.1;stroke:var(--bwd);stroke-dasharray:4 2}}
.s rect{{fill:var(--bg);fill-opacity:1}}
.in rect{{fill:none;stroke:var(--input)}}.out rect{{fill:none;stroke:var(--fg);stroke-width:1.6}}
.in text,.out text{{font-size:10px}}
image{{image-rendering:pixelated}}
.frame{{fill:none;stroke:var(--rule)}}
"""
"""Forward steps are rounded boxes with a full line, backward steps square ones with a dashed line and a nabla; what one
side saves for the other is dotted: so that a picture can be read without its colours."""

STATIC = f"svg{{{LIGHT}}}@media(prefers-color-scheme:dark){{svg{{{DARK}}}}}{SHAPES}"

_PAGE = """
.tracegrad{--bg:var(--jp-layout-color0,var(--vscode-editor-background,var(--page-bg)));
--fg:var(--jp-content-font-color1,var(--vscode-editor-foreground,var(--page-fg)));
--dim:var(--jp-content-font-color2,var(--vscode-descriptionForeground,var(--page-dim)));
--rule:var(--jp-border-color2,var(--vscode-panel-border,var(--page-rule)));
color:var(--fg);background:var(--bg);font:12px FONT;max-width:WIDTHpx}
.tracegrad .bar{display:flex;gap:8px;align-items:center;padding:4px 8px;flex-wrap:wrap}
.tracegrad .bar input{font:inherit;color:inherit;background:transparent;border:1px solid var(--rule);padding:2px 6px}
.tracegrad .bar button{font:inherit;color:inherit;background:transparent;border:1px solid var(--rule);cursor:pointer}
.tracegrad .bar .note{color:var(--dim)}
.tracegrad pre{margin:0;padding:6px 8px;min-height:3.2em;white-space:pre-wrap;color:var(--fg);background:transparent;
border-top:1px solid var(--rule);border-bottom:1px solid var(--rule);font:inherit}
.tracegrad .scroll{overflow:auto;max-height:75vh}
.tracegrad .strips{min-width:MINpx}
.tracegrad svg{display:block;width:100%;height:auto;overflow:visible}
.tracegrad details{margin:0}
.tracegrad summary{list-style:none;cursor:pointer;display:block}
.tracegrad summary::-webkit-details-marker{display:none}
.tracegrad details[open]>summary>.closed,.tracegrad details:not([open])>summary>.opened{display:none}
.tracegrad summary:focus-visible{outline:2px solid var(--fwd);outline-offset:-2px}
.tracegrad .body{margin:2px 12px 6px 24px;border:1px solid var(--rule);background:var(--bg);position:relative}
.tracegrad g[tabindex]{cursor:pointer;outline:none}
.tracegrad g[tabindex]:focus>rect,.tracegrad g.on>rect{stroke-width:3}
.tracegrad g.near>rect{fill-opacity:.35}
.tracegrad g.found>rect{stroke-width:3;fill-opacity:.5}
"""


def page(width: float) -> str:
    """The style of a picture of this width in a page, which follows JupyterLab, VS Code, or else the system."""
    own = LIGHT.replace("--bg", "--page-bg").replace("--fg", "--page-fg").replace("--dim", "--page-dim")
    dark = DARK.replace("--bg", "--page-bg").replace("--fg", "--page-fg").replace("--dim", "--page-dim")
    own, dark = own.replace("--rule", "--page-rule"), dark.replace("--rule", "--page-rule")
    rest = _PAGE.replace("WIDTH", f"{width:.0f}").replace("MIN", f"{width * 0.75:.0f}").replace("FONT", FONT)
    lab = '[data-jp-theme-light="false"] .tracegrad,.vscode-dark .tracegrad'
    bright = '[data-jp-theme-light="true"] .tracegrad,.vscode-light .tracegrad'
    themes = f".tracegrad{{{own}}}@media(prefers-color-scheme:dark){{.tracegrad{{{dark}}}}}"
    themes += f"{lab}{{{dark}}}{bright}{{{own}}}"
    shapes = "".join(
        ",".join(f".tracegrad svg {one}" for one in rule.partition("{")[0].split(","))
        + "{"
        + rule.partition("{")[2]
        + "}"
        for rule in SHAPES.replace("\n", "").split("}")
        if rule
    )
    return themes + rest + shapes


SCRIPT = """
(()=>{for(const top of document.querySelectorAll('.tracegrad:not([data-on])')){
const stored=top.querySelector('script[type="text/html"]');
if(!stored)continue;
top.dataset.on='1';
stored.insertAdjacentHTML('beforebegin',stored.textContent);
top.querySelector('.still').remove();
const strips=top.querySelector('.strips');
const panel=top.querySelector('pre'),find=top.querySelector('input'),note=top.querySelector('.note');
const all=[...strips.querySelectorAll('g[data-n]')],by=new Map(all.map(g=>[g.dataset.n,g]));
const text=g=>g.querySelector('title').textContent;
const show=g=>{for(const o of all)o.classList.remove('on','near');g.classList.add('on');panel.textContent=text(g);
for(const n of g.dataset.r.split(' '))by.get(n)?.classList.add('near');
for(const o of all)if(o.dataset.r.split(' ').includes(g.dataset.n))o.classList.add('near')};
const reveal=g=>{for(let d=g.closest('details');d;d=d.parentElement.closest('details'))d.open=true};
strips.addEventListener('focusin',e=>{const g=e.target.closest('g[data-n]');if(g)show(g)});
strips.addEventListener('click',e=>{const g=e.target.closest('g[data-n]');if(g){g.focus();show(g)}});
strips.addEventListener('keydown',e=>{const g=e.target.closest('g[data-n]');
const step={ArrowDown:1,ArrowUp:-1}[e.key];if(!g||!step)return;e.preventDefault();e.stopPropagation();
const seen=all.filter(o=>!o.closest('details:not([open])')),to=seen[seen.indexOf(g)+step];if(to)to.focus()});
let hits=[],at=0;
const look=()=>{const q=find.value.trim().toLowerCase();for(const g of all)g.classList.remove('found');
hits=q?all.filter(g=>text(g).toLowerCase().includes(q)):[];at=0;for(const g of hits)g.classList.add('found');
note.textContent=q?hits.length+' found':note.dataset.text;if(hits.length)go()};
const go=()=>{const g=hits[at%hits.length];reveal(g);show(g);g.scrollIntoView({block:'nearest'});
note.textContent=(at%hits.length+1)+' of '+hits.length+' found'};
find.addEventListener('input',look);
find.addEventListener('keydown',e=>{e.stopPropagation();if(e.key==='Enter'&&hits.length){at+=e.shiftKey?hits.length-1:1;go()}});
top.querySelectorAll('button').forEach((b,i)=>b.addEventListener('click',()=>{
for(const d of strips.querySelectorAll('details'))d.open=!i}));
}})()
"""
"""Puts the folding picture in the place of the still one, and makes it searchable. Of another picture on the page the
scripts may have been taken out."""
