// An element of ours at the bottom of a node, drawn by either renderer, that leaves no trace in saved graphs and queued prompts: it has no
// value, and the node is saved with the size that it would have without it.
import { app } from '../../scripts/app.js'

const MARGIN = 8

/** The node of an id as the server gives it: "4", "7:4" in a subgraph, "4.0.1" for what a node expanded to. Undefined where there is none. */
export function findNode(id) {
  let graph = app.rootGraph ?? app.graph
  let node
  for (const part of String(id).split('.')[0].split(':')) {
    node = graph?.getNodeById?.(part) ?? graph?.getNodeById?.(Number(part))
    graph = node?.subgraph
  }
  return node ?? undefined
}

/**
 * Put an element into a node, at the bottom. `name`: of the widget. Returns a function to be called whenever the element's height may have
 * changed, which makes room for it.
 */
export function addExtra(node, name, element) {
  const saved = heights(node)
  let height = 0
  const outer = () => height && height + 2 * MARGIN // no room is taken before it is known how much
  const widget = node.addDOMWidget(name, name, element, {
    serialize: false,
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: outer,
    getMaxHeight: outer,
    getValue: () => '',
    setValue: () => {}
  })
  widget.serialize = false
  widget.label = ''
  const fit = () => {
    const now = Math.ceil(element.firstElementChild?.offsetHeight ?? 0)
    if (!now || Math.abs(now - height) < 2) return
    height = now
    if (window.LiteGraph?.vueNodesMode) saved.rows.set(element, outer())
    else saved.grow(node.computeSize()[1])
    node.setDirtyCanvas?.(true, true)
  }
  new ResizeObserver(fit).observe(element.firstElementChild)
  return fit
}

// How much taller extra elements have made a node; taken off where the node is saved. On the canvas we make the room ourselves; HTML nodes grow
// with what is in them, some time later.
function heights(node) {
  if (node.equipoiseHeights) return node.equipoiseHeights
  const state = { before: node.size[1], grown: 0, rows: new Map() }
  state.grow = (needed) => {
    const without = node.size[1] - state.grown
    const height = Math.max(without, needed)
    if (height !== node.size[1]) node.setSize([node.size[0], height])
    state.grown = node.size[1] - without
  }
  const earlier = node.onSerialize
  node.onSerialize = function (saved) {
    earlier?.call(this, saved)
    if (!saved.size) return
    for (const element of state.rows.keys()) state.measure(element)
    const rows = [...state.rows.values()].reduce((a, b) => a + b, 0)
    const height = rows ? Math.max(Math.min(state.before, saved.size[1]), saved.size[1] - rows) : saved.size[1] - state.grown
    saved.size = [saved.size[0], height]
  }
  state.measure = (element) => {
    const row = element.closest('.lg-node-widget')
    if (row?.offsetHeight) state.rows.set(element, row.offsetHeight + (parseFloat(getComputedStyle(row.parentElement).rowGap) || 0))
    else if (!window.LiteGraph?.vueNodesMode) state.rows.delete(element)
  }
  node.equipoiseHeights = state
  return state
}

const adopted = new Set()

/** Load a style sheet of this folder, once. Adopted, not linked: nothing of ours is put into the page that all packs share. */
export async function useStyles(file) {
  const href = new URL(file, import.meta.url).href
  if (adopted.has(href)) return
  adopted.add(href)
  const sheet = new CSSStyleSheet()
  await sheet.replace(await (await fetch(href)).text())
  document.adoptedStyleSheets.push(sheet)
}

/** An element with a class, attributes and children. */
export function make(tag, className = '', attributes = {}, ...children) {
  const element = document.createElement(tag)
  element.className = className
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}
