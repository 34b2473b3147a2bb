// Put an element of ours at the bottom of a node, in either renderer. Saved graphs and queued prompts are the same with and without it: the
// element has no value, and the node is saved with the size that it would have without the element.

const MARGIN = 8

/**
 * Add an element at the bottom of a node, as a widget called `name`. `label` returns what users read where the front end lists widgets.
 *
 * Returns a function that makes room for the element. Call it whenever the element's height may have changed.
 */
export function addExtra(node, name, element, label) {
  const heights = heightsOf(node)
  let height = 0
  const outer = () => height && height + 2 * MARGIN // takes no room until the height is known
  const widget = node.addDOMWidget(name, name, element, {
    serialize: false,
    hideOnZoom: false,
    hideInPanel: true, // an element has one place: on the node
    margin: MARGIN,
    getMinHeight: outer,
    getMaxHeight: outer,
    getValue: () => '',
    setValue: () => {}
  })
  widget.serialize = false
  // The panel of a subgraph lists hidden widgets too, and gives each the panel's width. An element is as wide as its node.
  Object.defineProperty(widget, 'width', { get: () => undefined, set: () => {} })
  const fit = () => {
    widget.label = label() // the translations may have come later than the node
    const now = Math.ceil(element.firstElementChild?.offsetHeight ?? 0)
    if (!now || Math.abs(now - height) < 2) return
    height = now
    if (window.LiteGraph?.vueNodesMode) heights.rows.set(element, outer())
    else heights.grow(node.computeSize()[1])
    node.setDirtyCanvas?.(true, true)
  }
  new ResizeObserver(fit).observe(element.firstElementChild)
  fit()
  return fit
}

/** Get the record of how much our elements have made a node grow. */
function heightsOf(node) {
  return (node.equipoiseHeights ??= new Heights(node))
}

/**
 * Height that our elements add to a node. It is taken off when the node is saved.
 *
 * On the canvas we make the room ourselves. Nodes in HTML grow with their content, some time later.
 */
class Heights {
  constructor(node) {
    this.node = node
    this.before = node.size[1]
    this.grown = 0
    this.rows = new Map() // element -> height of its row in a node in HTML
    const earlier = node.onSerialize
    const heights = this
    node.onSerialize = function (saved) {
      earlier?.call(this, saved)
      if (saved.size) saved.size = [saved.size[0], heights.without(saved.size[1])]
    }
  }

  /** Make a node on the canvas at least as tall as it needs to be. */
  grow(needed) {
    const { node } = this
    const without = node.size[1] - this.grown
    const height = Math.max(without, needed)
    if (height !== node.size[1]) node.setSize([node.size[0], height])
    this.grown = node.size[1] - without
  }

  /** Compute the height that the node would have without our elements. */
  without(height) {
    for (const element of this.rows.keys()) this.measure(element)
    const rows = [...this.rows.values()].reduce((a, b) => a + b, 0)
    return rows ? Math.max(Math.min(this.before, height), height - rows) : height - this.grown
  }

  /** Measure an element's row in a node in HTML; forget the row if the node is now on the canvas. */
  measure(element) {
    const row = element.closest('.lg-node-widget')
    if (row?.offsetHeight) this.rows.set(element, row.offsetHeight + (parseFloat(getComputedStyle(row.parentElement).rowGap) || 0))
    else if (!window.LiteGraph?.vueNodesMode) this.rows.delete(element)
  }
}

const adopted = new Set() // addresses of the style sheets that are loaded

/** Load a style sheet of this folder, once. It is adopted, not linked, because all packs share the page's elements. */
export async function useStyles(file) {
  const href = new URL(file, import.meta.url).href
  if (adopted.has(href)) return
  adopted.add(href)
  const sheet = new CSSStyleSheet()
  await sheet.replace(await (await fetch(href)).text())
  document.adoptedStyleSheets.push(sheet)
}

/** Make an element with a class, attributes and children. */
export function make(tag, className = '', attributes = {}, ...children) {
  const element = document.createElement(tag)
  element.className = className
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value)
  element.append(...children)
  return element
}
