// Attribute Histogram: below the chart, a small picture per image with the class that was assigned to it and the class that was seen in it.
// Pictures and classes come with what the node shows (host/thumbs.py).
import { api } from '../../scripts/api.js'
import { app } from '../../scripts/app.js'
import { addExtra, findNode, make, useStyles } from './extra_widget.js'
import { text } from './texts.js'

const NODE = 'EquipoiseAttributeHistogram'
const lists = new WeakMap() // node -> what is shown on it

app.registerExtension({
  name: 'equipoise.HistogramThumbs',
  setup() {
    useStyles('./equipoise.css')
    api.addEventListener('executed', ({ detail }) => {
      const told = detail?.output?.equipoise_thumbs?.[0]
      const node = findNode(detail?.display_node ?? detail?.node)
      if (!node || (node.comfyClass ?? node.type) !== NODE) return
      if (!lists.has(node)) {
        if (!told) return
        lists.set(node, new List(node))
      }
      lists.get(node).show(told)
    })
  }
})

class List {
  constructor(node) {
    const title = text('thumbs.title', 'Images: class assigned, class seen')
    this.count = make('span', 'equipoise-step')
    this.list = make('ul', 'equipoise-list', { tabindex: '0', 'aria-label': title })
    const head = make('div', 'equipoise-head', {}, make('span', '', {}, title), this.count)
    this.content = make('div', 'equipoise-thumbs', {}, head, this.list)
    this.list.addEventListener('wheel', (event) => event.stopPropagation(), { passive: true }) // it scrolls, and the graph does not zoom
    this.fit = addExtra(node, 'equipoise_thumbs', make('div', 'equipoise-extra', {}, this.content))
  }

  /** `told`: what the server says; undefined where this run showed no images (a ledger's counts). */
  show(told) {
    const images = told?.seen.length ?? 0
    const missed = told?.assigned ? told.seen.filter((seen, i) => wrong(seen, told.assigned[i])).length : 0
    const counts = [
      ...(told && images < told.images ? [text('thumbs.first', 'the first {shown} of {images}', { shown: images, images: told.images })] : []),
      ...(told?.assigned ? [text('thumbs.missed', '{missed} of {shown} seen otherwise than assigned', { missed, shown: images })] : [])
    ]
    this.count.textContent = counts.join(', ')
    const address = told && api.apiURL(`/view?${new URLSearchParams(told.sheet)}`)
    this.list.replaceChildren(...(told?.seen ?? []).map((seen, i) => item(i, told, seen, told.assigned?.[i], address)))
    this.fit()
  }
}

function item(i, told, seen, assigned, address) {
  const rows = Math.ceil(told.seen.length / told.columns)
  const column = i % told.columns
  const row = Math.floor(i / told.columns)
  const part = (at, of) => (of > 1 ? (100 * at) / (of - 1) : 0)
  const missed = assigned && wrong(seen, assigned)
  const picture = make('span', 'equipoise-picture', { role: 'img', 'aria-label': text('thumbs.image', 'image {number}', { number: i + 1 }) })
  picture.style.backgroundImage = `url("${address}")`
  picture.style.backgroundSize = `${100 * told.columns}% ${100 * rows}%`
  picture.style.backgroundPosition = `${part(column, told.columns)}% ${part(row, rows)}%`
  const lines = [text('thumbs.seen', 'seen: {classes}', { classes: Object.values(seen).join(', ') })]
  if (assigned) lines.unshift(text('thumbs.assigned', 'assigned: {classes}', { classes: Object.values(assigned).join(', ') }))
  const entry = make('li', missed ? 'equipoise-missed' : '', {}, picture, ...lines.map((line) => make('span', 'equipoise-line', {}, line)))
  entry.title = Object.entries(seen)
    .map(([attribute, name]) => `${attribute}: ${assigned?.[attribute] ? `${assigned[attribute]} \u2192 ${name}` : name}`)
    .join('\n')
  return entry
}

function wrong(seen, assigned) {
  return Object.entries(assigned).some(([attribute, name]) => attribute in seen && seen[attribute] !== name)
}
