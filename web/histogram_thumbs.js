// Attribute Histogram: below the chart, a small picture of each image with the class that it was assigned and the classifier's reading.
// Pictures and classes come with the node's output (host/report/thumbs.py).
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { addExtra, make, useStyles } from './extra_widget.js'
import { TabOutputs } from './tab_outputs.js'
import { text } from './texts.js'

const NODE = 'EquipoiseAttributeHistogram'
const lists = new WeakMap() // node -> its list of pictures
const outputs = new TabOutputs([NODE], show)
const TALLEST = 330 // pixels of the list; whole rows are shown

app.registerExtension({
  name: 'equipoise.HistogramThumbs',
  setup() {
    useStyles('./equipoise.css')
    api.addEventListener('executed', ({ detail }) => {
      const thumbs = detail?.output?.equipoise_thumbs?.[0]
      outputs.take(detail?.display_node ?? detail?.node, { prompt: detail?.prompt_id, workflow: thumbs?.workflow }, thumbs)
    })
  }
})

/** Show pictures on their node; none if the run had no images. */
function show(node, thumbs) {
  if (!lists.has(node) && !thumbs) return
  if (!lists.has(node)) lists.set(node, new List(node))
  lists.get(node).show(thumbs)
}

/** The pictures of one node. */
class List {
  constructor(node) {
    const title = text('thumbs.title', 'Assigned class and reading')
    this.count = make('span', 'equipoise-step')
    this.list = make('ul', 'equipoise-list', { tabindex: '0', 'aria-label': title })
    const head = make('div', 'equipoise-head', {}, make('span', '', {}, title), this.count)
    this.content = make('div', 'equipoise-thumbs', {}, head, this.list)
    this.list.addEventListener('wheel', (event) => event.stopPropagation(), { passive: true }) // scroll the list, do not zoom the graph
    this.fit = addExtra(node, 'equipoise_thumbs', make('div', 'equipoise-extra', {}, this.content), () => text('thumbs.title', 'Assigned class and reading'))
    new ResizeObserver(() => this.showWholeRows()).observe(this.list)
  }

  /** Make the list as tall as whole rows, so that none is cut. */
  showWholeRows() {
    const entries = [...this.list.children]
    const below = entries.find((entry) => entry.offsetTop > entries[0].offsetTop)
    const row = below ? below.offsetTop - entries[0].offsetTop : 0
    const height = row ? `${Math.max(1, Math.floor(TALLEST / row)) * row + 2}px` : ''
    if (height !== this.list.style.maxHeight) this.list.style.maxHeight = height
  }

  /** Show what the server sent; undefined if the run had no images, only a ledger's counts. */
  show(thumbs) {
    this.count.textContent = thumbs ? counts(thumbs) : ''
    const address = thumbs && api.apiURL(`/view?${new URLSearchParams(thumbs.sheet)}`)
    this.list.replaceChildren(...(thumbs?.seen ?? []).map((_, i) => item(thumbs, i, address)))
    this.showWholeRows()
    this.fit()
  }
}

/** Say how many images are shown, and how many of them missed their assigned class. */
function counts({ images, seen, assigned }) {
  const shown = seen.length
  const parts = []
  if (shown < images) parts.push(text('thumbs.first', 'first {shown} of {images} images', { shown, images }))
  if (assigned) {
    const missed = seen.filter((reading, i) => isMissed(reading, assigned[i])).length
    parts.push(text('thumbs.missed', 'without their assigned class: {missed} of {shown}', { missed, shown }))
  }
  return parts.join(', ')
}

/** Make the list's entry for image `i`. */
function item(thumbs, i, address) {
  const [reading, assigned] = [thumbs.seen[i], thumbs.assigned?.[i]]
  const lines = [text('thumbs.seen', 'reading: {classes}', { classes: Object.values(reading).join(', ') })]
  if (assigned) lines.unshift(text('thumbs.assigned', 'assigned: {classes}', { classes: Object.values(assigned).join(', ') }))
  const missed = assigned && isMissed(reading, assigned)
  const spans = lines.map((line) => make('span', 'equipoise-line', {}, line))
  const entry = make('li', missed ? 'equipoise-missed' : '', {}, picture(thumbs, i, address), ...spans)
  entry.title = Object.entries(reading)
    .map(([attribute, name]) => `${attribute}: ${assigned?.[attribute] ? `${assigned[attribute]} \u2192 ${name}` : name}`)
    .join('\n')
  return entry
}

/** Make the picture of image `i`: its part of the sheet that holds all of them. */
function picture({ seen, columns }, i, address) {
  const rows = Math.ceil(seen.length / columns)
  const position = (index, count) => (count > 1 ? (100 * index) / (count - 1) : 0)
  const element = make('span', 'equipoise-picture', { role: 'img', 'aria-label': text('thumbs.image', 'image {number}', { number: i + 1 }) })
  element.style.backgroundImage = `url("${address}")`
  element.style.backgroundSize = `${100 * columns}% ${100 * rows}%`
  element.style.backgroundPosition = `${position(i % columns, columns)}% ${position(Math.floor(i / columns), rows)}%`
  return element
}

/** Tell whether an image's reading differs from what it was assigned, in any attribute that was read. */
function isMissed(reading, assigned) {
  return Object.entries(assigned).some(([attribute, name]) => attribute in reading && reading[attribute] !== name)
}
